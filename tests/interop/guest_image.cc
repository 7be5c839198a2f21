// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/interop/guest_image.h"

#include <sys/stat.h>

namespace drydock::test {

namespace fs = std::filesystem;

namespace {

void make_empty(const std::string& path, uint64_t size) {
  write_file(path, "");
  fs::resize_file(path, size);
}

void put_at(const std::string& part, const std::string& image, uint64_t mebibytes) {
  run_ok({"dd", "if=" + part, "of=" + image, "bs=1M", fmt::format("seek={}", mebibytes), "conv=notrunc,sparse"});
}

}  // namespace

void make_debian_tree(const fs::path& folder, const std::string& fstab) {
  for (const char* name :
       {"bin", "boot/efi", "dev", "etc", "home/user/sub", "lib", "root", "tmp", "usr/bin", "var/log"}) {
    fs::create_directories(folder / name);
  }
  const auto put = [&](const std::string& name, const std::string& text) {
    write_file((folder / name).string(), text);
  };
  put("etc/os-release",
      "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n");
  put("etc/debian_version", "12.5\n");
  put("etc/hostname", "guest1\n");
  put("etc/motd", "Welcome\nto foo\n");
  put("etc/fstab", fstab);
  put("home/user/with space,comma", "hello\n");
  put("home/user/sub/empty", "");
  write_file((folder / "home/user/sub/random").string(), random_bytes(7, 300000));
  put("usr/bin/tool", "#!/bin/sh\n");
  ::chmod((folder / "usr/bin/tool").c_str(), 04755);
  ::chmod((folder / "tmp").c_str(), 01777);
  fs::create_symlink("hostname", folder / "etc/link");
  fs::create_symlink("../../../../../../../../etc/passwd", folder / "home/user/escape");
}

void make_partitioned_guest(const std::string& path, const fs::path& tree, const fs::path& scratch) {
  const std::string root = (scratch / "root.part").string();
  const std::string esp = (scratch / "esp.part").string();
  make_empty(root, 64 << 20);
  run_ok({"mke2fs", "-q", "-t", "ext4", "-L", "rootfs", "-U", "11111111-2222-3333-4444-555555555555", "-E",
          "root_owner=0:0", "-d", tree.string(), root});
  for (const char* request :
       {"sif /etc/motd uid 12", "sif /etc/motd gid 34", "sif /etc/motd mode 0100640", "ea_set /etc/motd user.note kept",
        "ea_set /etc/motd security.selinux system_u:object_r:etc_t:s0"}) {
    run_ok({"debugfs", "-w", "-R", request, root});
  }
  make_empty(esp, 16 << 20);
  run_ok({"mkfs.vfat", "-n", "ESP", "-i", "12345678", esp});
  make_empty(path, 90 << 20);
  run_ok({"sgdisk", "-n1:2048:+16M", "-t1:ef00", "-n2:0:+64M", "-t2:8300", path});
  put_at(esp, path, 1);
  put_at(root, path, root_offset >> 20);
}

std::string root_filesystem(const std::string& image) { return fmt::format("{}?offset={}", image, root_offset); }

void make_lvm_guest(const std::string& path, const fs::path& tree, const fs::path& scratch) {
  const std::string archive = (scratch / "tree.tar").string();
  run_ok({"tar", "-C", tree.string(), "--owner=0", "--group=0", "-cf", archive, "."});
  make_empty(path, 160 << 20);
  const std::vector<std::string> steps{"run",
                                       "part-disk /dev/sda mbr",
                                       "pvcreate /dev/sda1",
                                       "vgcreate vg_guest /dev/sda1",
                                       "lvcreate lv_root vg_guest 96",
                                       "lvcreate lv_swap vg_guest 16",
                                       "mkswap /dev/vg_guest/lv_swap",
                                       "mkfs ext4 /dev/vg_guest/lv_root label:lvroot",
                                       "mount /dev/vg_guest/lv_root /",
                                       "tar-in " + archive + " /"};
  std::string script;
  for (const std::string& step : steps) script += step + "\n";
  write_file((scratch / "script").string(), script);
  const Outcome outcome = run_incumbent({"guestfish", "--format=raw", "-a", path, "-f", (scratch / "script").string()});
  if (outcome.status != 0) throw std::runtime_error("guestfish: " + outcome.err);
}

void make_encrypted_guest(const std::string& path, const fs::path& tree, const fs::path& scratch) {
  const std::string archive = (scratch / "tree.tar").string();
  run_ok({"tar", "-C", tree.string(), "--owner=0", "--group=0", "-cf", archive, "."});
  make_empty(path, 100 << 20);
  // guestfish would ask for the passphrase.
  const std::string script =
      "use Sys::Guestfs; my ($image, $archive) = @ARGV; my $g = Sys::Guestfs->new();"
      "$g->add_drive($image, format => 'raw'); $g->launch(); $g->part_disk('/dev/sda', 'mbr');"
      "$g->luks_format('/dev/sda1', 'secret', 0); $g->cryptsetup_open('/dev/sda1', 'secret', 'made');"
      "$g->mkfs('ext4', '/dev/mapper/made', label => 'cryptroot'); $g->mount('/dev/mapper/made', '/');"
      "$g->tar_in($archive, '/'); $g->shutdown();";
  const Outcome outcome = run_incumbent({"perl", "-e", script, path, archive});
  if (outcome.status != 0) throw std::runtime_error("Sys::Guestfs: " + outcome.err);
}

Outcome run_incumbent(const std::vector<std::string>& argv) {
  std::vector<std::string> words{"env", "LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg"};
  words.insert(words.end(), argv.begin(), argv.end());
  return run(words);
}

}  // namespace drydock::test
