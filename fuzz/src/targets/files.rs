//! What comes from files and from the guest's disk.

use vmm::boot::fdt::{Node, Value};
use vmm::boot::image::Image;
use vmm::boot::load::place;
use vmm::compress::record::Record;

use crate::input::Input;

/// The kernel image, and where it and an initramfs would go.
pub fn image(data: &[u8]) {
    if let Ok(image) = Image::parse(data.to_vec(), 64 << 20) {
        for initrd in [None, Some(0), Some(data.len() as u64), Some(u64::MAX)] {
            for ram_bytes in [0, 64 << 20, 1 << 40] {
                let _ = place(&image, initrd, ram_bytes);
            }
        }
    }
}

/// The record that the guest's half of the compression job leaves on its disk.
pub fn record(data: &[u8]) {
    if let Ok(record) = Record::parse(data) {
        let clean = |text: &str| !text.chars().any(char::is_control);
        assert!(clean(&record.status) && clean(&record.kernel), "nothing may steer the terminal");
    }
}

/// The device tree, with a command line and names of the input's.
pub fn device_tree(data: &[u8]) {
    let mut input = Input::new(data);
    let mut text = || {
        let len = input.u8();
        String::from_utf8_lossy(input.bytes(len.into())).into_owned()
    };
    let (name, property, bootargs) = (text(), text(), text());
    let child = Node::new(name)
        .with(&property, Value::Bytes(bootargs.clone().into_bytes()))
        .strings("bootargs", &[&bootargs]);
    if let Ok(tree) = Node::new("").child(child).flatten() {
        assert_eq!(
            tree.first_chunk(),
            Some(&[0xd0, 0x0d, 0xfe, 0xed]),
            "a device tree starts with its magic"
        );
    }
}
