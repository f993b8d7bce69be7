//! NUMA nodes, as Linux reads them from the device tree: `warpvmm run --numa N`.

use e2e::{Run, zip_test};

/// Shows where each accelerator is.
const ACCELERATORS: &str = "cd /sys/class/uacce; for i in *; do echo $i at $(basename $(readlink -f $i/device)) on $(cat $i/device/numa_node); done";

/// The main library of the accelerator reads this file of every device, and takes none that has it not.
#[test]
fn accelerator_tells_its_numa_node_also_in_a_machine_without_nodes() {
    Run::job(ACCELERATORS).finish().expect_status(0).expect_console("hisi_zip-0 at 0000:00:01.0 on -1");
}

#[test]
fn two_nodes_share_memory_vcpus_and_accelerators() {
    let list = "cd /sys/devices/system/node; grep . online node*/cpulist node*/distance";
    Run::verbose_job(&format!("{list}; {ACCELERATORS}"))
        .args(&["--cpus", "4", "--numa", "2", "--accel", "zip,zip:ats,zip"])
        .finish()
        .expect_status(0)
        .expect_console("smp: Brought up 2 nodes, 4 CPUs")
        .expect_console("node   0: [mem 0x0000000040000000-0x000000005fffffff]")
        .expect_console("node   1: [mem 0x0000000060000000-0x000000007fffffff]")
        .expect_console("online:0-1")
        .expect_console("node0/cpulist:0-1")
        .expect_console("node1/cpulist:2-3")
        .expect_console("node0/distance:10 20")
        .expect_console("node1/distance:20 10")
        .expect_console("hisi_zip-0 at 0000:00:01.0 on 0")
        .expect_console("hisi_zip-1 at 0000:00:02.0 on 0")
        .expect_console("hisi_zip-2 at 0001:80:01.0 on 1")
        .expect_content_kernel();
}

/// With the first one unbound, what is left is behind the second node's host bridge: its requester IDs at SMMU and ITS.
#[test]
fn accelerator_of_the_second_node_works_with_shared_addresses_and_messages() {
    let unbind = "echo 0000:00:01.0 >/sys/bus/pci/drivers/hisi_zip/unbind";
    for accel in ["zip,zip", "zip,zip:ats"] {
        Run::job(&format!("{unbind}; {ACCELERATORS}; {}", zip_test("formats stream pasid many pageout")))
            .args(&["--cpus", "2", "--numa", "2", "--accel", accel])
            .finish()
            .expect_status(0)
            .expect_console_without("0000:00:01.0 on")
            .expect_console("0001:80:01.0 on 1")
            .expect_console("warp: exit status 0")
            .expect_content_kernel();
    }
}

#[test]
fn most_nodes_boot_with_fewer_vcpus_than_nodes() {
    Run::job("grep . /sys/devices/system/node/online /sys/devices/system/node/node*/cpulist")
        .args(&["--cpus", "2", "--numa", "8", "--memory", "512M"])
        .finish()
        .expect_status(0)
        .expect_console("online:0-7")
        .expect_console("node0/cpulist:0")
        .expect_console("node4/cpulist:1")
        .expect_content_kernel();
}

#[test]
fn nodes_that_no_machine_has_are_usage_errors() {
    let few = Run::job("true").args(&["--numa", "8", "--memory", "128M"]).finish().expect_status(2);
    let _ = few.expect_stderr("--numa 8 needs --memory 256M or more");
    for count in ["0", "9", "two"] {
        Run::job("true").args(&["--numa", count]).finish().expect_status(2);
    }
}
