//! Drives as a user gives them: what is refused before the boot, and what the guest gives back to the host.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use e2e::Run;

/// A guest makes a file system, fills it, deletes and trims: the image is as small as before, in the sandbox.
#[test]
fn room_that_the_guest_trims_is_the_hosts_again() {
    const FILE_BYTES: u64 = 32 << 20;
    let disk = tempfile::NamedTempFile::new().expect("room");
    disk.as_file().set_len(64 << 20).expect("room");
    let host_bytes = || {
        File::open(disk.path()).expect("ours").sync_all().expect("room");
        fs::metadata(disk.path()).expect("ours").blocks() * 512
    };
    let fill = "mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=32 && umount /mnt";
    let trim =
        "mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && rm /mnt/f && sync && fstrim /mnt && umount /mnt";
    let drive = disk.path().display().to_string();
    let run = |job: &str| {
        Run::job(job)
            .args(&["--drive", &drive])
            .finish()
            .expect_status(0)
            .expect_console("warp: exit status 0");
    };

    run(&format!("mke2fs /dev/vda && {fill}"));
    let full = host_bytes();
    run(trim);

    assert!(full >= FILE_BYTES, "{full}");
    assert!(host_bytes() <= full - FILE_BYTES, "{} of {full}", host_bytes());
}

#[test]
fn image_of_another_format_is_refused_before_the_boot_and_not_touched() {
    let disk = tempfile::NamedTempFile::new().expect("room");
    let image = [&b"QFI\xfb\0\0\0\x03"[..], &[0; 65_528]].concat();
    fs::write(disk.path(), &image).expect("room");
    let drive = disk.path().display().to_string();
    Run::job("dd if=/dev/zero of=/dev/vda bs=512 count=1")
        .args(&["--drive", &drive])
        .finish()
        .expect_status(1)
        .expect_stderr("qcow2")
        .expect_stderr("qemu-img convert -O raw")
        .expect_stderr(",format=raw");
    assert_eq!(fs::read(disk.path()).expect("ours"), image);

    Run::job("dd if=/dev/zero of=/dev/vda bs=512 count=1")
        .args(&["--drive", &format!("{drive},format=raw")])
        .finish()
        .expect_status(0);
    assert_eq!(fs::read(disk.path()).expect("ours"), [0; 65_536]);
}
