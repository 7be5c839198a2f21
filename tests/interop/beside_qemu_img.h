// SPDX-License-Identifier: GPL-3.0-or-later
//
// The same words for qemu-img and for drydock under that name, and what both make of them.
//
// Tests of texts have tables of lines; each is run by both, one that changes images in a folder of its own. Where
// drydock means to differ the line says so, with what it says instead.

#pragma once

#include <gmock/gmock.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/support.h"

namespace drydock::test {

// A folder of images of many kinds, and the working directory while it is in use.
class ImageFolder {
 public:
  ImageFolder();
  ImageFolder(const ImageFolder&) = delete;
  ImageFolder& operator=(const ImageFolder&) = delete;
  ~ImageFolder();

  // Two folders with the same images, to be changed by two programs.
  void make_copies() const;
  void enter(const std::string& folder) const;

 private:
  void make() const;
  void make_overlays() const;
  void make_broken() const;

  TempDir dir_;
  std::filesystem::path previous_;
};

// Those that can be opened, but for orphan.qcow2, whose backing file is gone, and corrupt.qcow2, which is marked so.
extern const std::vector<std::string> good_images;

// What a line is expected to do where it is not the same.
struct Line {
  std::vector<std::string> words;
  // How drydock's standard error begins behind "qemu-img: ", where its words are others for the same cause.
  std::string instead = {};
};

std::string joined(const std::vector<std::string>& words);
Outcome as_qemu_img(std::vector<std::string> words);
Outcome qemu_img(std::vector<std::string> words);

class BesideQemuImg : public testing::Test {
 protected:
  static void SetUpTestSuite() { images_ = std::make_unique<ImageFolder>(); }
  static void TearDownTestSuite() { images_.reset(); }
  void TearDown() override { images_->enter("."); }

  static void expect_the_same(const std::vector<Line>& lines);
  // Each program changes images of its own, and then they are the same.
  static void expect_the_same_change(const Line& line, const std::vector<std::string>& changed);
  // The same for new images, which are removed again. Nothing else is changed by the line, and nothing is left where
  // it fails.
  static void expect_the_same_new(const Line& line, const std::vector<std::string>& made);

  static std::unique_ptr<ImageFolder> images_;
};

}  // namespace drydock::test
