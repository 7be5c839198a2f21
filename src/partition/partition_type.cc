// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/partition/partition_type.h"

#include <algorithm>
#include <array>

namespace drydock {

namespace {

struct NamedType {
  std::string_view type;
  std::string_view name;
};

constexpr std::array types{
    NamedType{"0x01", "FAT12"},
    NamedType{"0x04", "FAT16"},
    NamedType{"0x05", "extended"},
    NamedType{"0x06", "FAT16"},
    NamedType{"0x07", "NTFS or exFAT"},
    NamedType{"0x0b", "FAT32"},
    NamedType{"0x0c", "FAT32"},
    NamedType{"0x0e", "FAT16"},
    NamedType{"0x0f", "extended"},
    NamedType{"0x27", "Windows recovery"},
    NamedType{"0x82", "Linux swap"},
    NamedType{"0x83", "Linux"},
    NamedType{"0x85", "extended"},
    NamedType{"0x8e", "Linux LVM"},
    NamedType{"0xa5", "FreeBSD"},
    NamedType{"0xa6", "OpenBSD"},
    NamedType{"0xa9", "NetBSD"},
    NamedType{"0xee", "GPT protective"},
    NamedType{"0xef", "EFI system"},
    NamedType{"0xfd", "Linux RAID"},
    NamedType{"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"},
    NamedType{"21686148-6449-6e6f-744e-656564454649", "BIOS boot"},
    NamedType{"0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux filesystem"},
    NamedType{"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"},
    NamedType{"44479540-f297-41b2-9af7-d131d5f0458a", "Linux root (x86)"},
    NamedType{"b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM 64)"},
    NamedType{"bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux extended boot"},
    NamedType{"933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"},
    NamedType{"3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "Linux server data"},
    NamedType{"4d21b016-b534-45c2-a9fb-5c16e091fd2d", "Linux variable data"},
    NamedType{"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"},
    NamedType{"e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"},
    NamedType{"a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"},
    NamedType{"ca7d7ccb-63ed-4c53-861c-1742536059cc", "LUKS"},
    NamedType{"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"},
    NamedType{"e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"},
    NamedType{"de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"},
    NamedType{"516e7cb4-6ecf-11d6-8ff8-00022d09712b", "FreeBSD"},
    NamedType{"83bd6b9d-7f41-11dc-be0b-001560b84f0f", "FreeBSD boot"},
    NamedType{"516e7cb5-6ecf-11d6-8ff8-00022d09712b", "FreeBSD swap"},
    NamedType{"516e7cb6-6ecf-11d6-8ff8-00022d09712b", "FreeBSD UFS"},
    NamedType{"516e7cba-6ecf-11d6-8ff8-00022d09712b", "FreeBSD ZFS"},
    NamedType{"6a898cc3-1dd2-11b2-99a6-080020736631", "ZFS"},
    NamedType{"7c3457ef-0000-11aa-aa11-00306543ecac", "APFS"},
    NamedType{"48465300-0000-11aa-aa11-00306543ecac", "HFS+"},
};

}  // namespace

std::string_view partition_type_name(std::string_view type) {
  const auto found = std::ranges::find(types, type, &NamedType::type);
  return found == types.end() ? std::string_view{} : found->name;
}

}  // namespace drydock
