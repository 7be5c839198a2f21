// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/raw_image.h"

namespace drydock {

RawImage::RawImage(std::shared_ptr<Storage> storage, RawOrigin origin)
    : storage_(storage), disk_(std::make_shared<RawDisk>(std::move(storage), origin)) {}

}  // namespace drydock
