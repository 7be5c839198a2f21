// SPDX-License-Identifier: GPL-3.0-or-later
//
// From a Header to the bytes of an image's first cluster, laid out as QEMU lays them out: fixed fields, extensions, the
// backing file's name right behind them ("Header", "Header extensions", "Feature name table").
//
// Only for clusters that are written whole: what another program put there (unknown fields and extensions) is not kept.
// To change a header that exists, see HeaderFields.

#pragma once

#include <vector>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// One cluster. The caller answers for the fields' agreement with each other (feature bits, version).
// Throws invalid when names or extensions do not fit.
std::vector<std::byte> encode_header(const Header& header);

}  // namespace drydock::qcow2
