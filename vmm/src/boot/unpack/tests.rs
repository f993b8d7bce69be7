//! Files that the tools of the kernel's build have made, with its options, of one small image.

use super::*;
use crate::boot::image::Image;

/// The image: 16 KiB with the magic, its size, and branches with link to one place, which xz's filter for arm64 changes.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; 16 << 10];
    bytes[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    for at in (64..4096u32).step_by(64) {
        let branch = 0x9400_0000 | (0x3000 - at) >> 2;
        bytes[at as usize..at as usize + 4].copy_from_slice(&branch.to_le_bytes());
    }
    bytes
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// Each tool's name, the name that a zboot header has for it, and what it has made.
const FILES: [(&str, &str, &str); 7] = [
    ("gzip", "gzip", GZIP),
    ("zstd", "zstd22", ZSTD),
    ("xz", "xzkern", XZ),
    ("lzma", "lzma", LZMA),
    ("lz4", "lz4", LZ4),
    ("lz4", "lz4", LZ4_FRAME),
    ("bzip2", "bzip2", BZIP2),
];

const MIB: u64 = 1 << 20;

fn zboot(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&64u32.to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + name.len()].copy_from_slice(name.as_bytes());
    file.extend(payload);
    file
}

#[test]
fn image_of_every_tool_is_unpacked_from_its_file_and_from_a_zboot_image() {
    let whole = Image::parse(image(), MIB).unwrap();
    for (tool, name, hex) in FILES {
        let packed = bytes(hex);
        assert_eq!(Image::parse(packed.clone(), MIB).as_ref(), Ok(&whole), "{tool}");
        assert_eq!(Image::parse(zboot(name, &packed), MIB).as_ref(), Ok(&whole), "{tool} in zboot");
    }
}

#[test]
fn damaged_files_are_never_taken_for_whole_ones() {
    let whole = Image::parse(image(), MIB);
    for (tool, _, hex) in FILES {
        let packed = bytes(hex);
        let mut changed = packed.clone();
        let middle = changed.len() / 2;
        changed[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0xff);
        assert_ne!(Image::parse(changed, MIB), whole, "{tool}");

        let half = Image::parse(packed[..middle].to_vec(), MIB);
        assert!(
            matches!(&half, Err(ImageError::Damaged { packing, .. }) if *packing == tool),
            "{tool}: {half:?}"
        );
    }
}

#[test]
fn zstd_with_a_wrong_checksum_is_damaged() {
    let mut packed = bytes(ZSTD);
    *packed.last_mut().unwrap() ^= 1;
    let error = Image::parse(packed, MIB).unwrap_err();
    assert!(matches!(&error, ImageError::Damaged { why, .. } if why.contains("checksum")), "{error}");
}

#[test]
fn image_larger_than_the_memory_is_unpacked_no_further() {
    for (tool, _, hex) in FILES {
        let limit = (16 << 10) - 1;
        assert_eq!(Image::parse(bytes(hex), limit), Err(ImageError::Huge { limit }), "{tool}");
    }
}

/// A bomb: 64 MiB of zeros. What is no kernel is not unpacked beyond its first page.
#[test]
fn what_is_no_kernel_is_not_unpacked() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut io::repeat(0).take(64 << 20), &mut bomb).unwrap();
    let bomb = bomb.finish().unwrap();
    assert_eq!(Packing::Gzip.unpack(&bomb, 64 << 20).unwrap().len() as u64, FIRST);
    assert_eq!(Image::parse(bomb, 64 << 20), Err(ImageError::Unknown));
}

#[test]
fn dictionary_larger_than_any_kernels_is_refused() {
    // LZMA: the dictionary's size is in bytes 1 to 4 of the header.
    let mut packed = bytes(LZMA);
    packed[4] = 0x40;
    assert!(matches!(Packing::Lzma.unpack(&packed, MIB), Err(ImageError::Damaged { packing: "lzma", .. })));
    // zstd: the window's size is in the byte behind the frame's descriptor.
    let mut packed = bytes(ZSTD);
    packed[5] = 0xa0;
    assert!(matches!(Packing::Zstd.unpack(&packed, MIB), Err(ImageError::Damaged { packing: "zstd", .. })));
}

#[test]
fn lzo_is_refused_by_its_name() {
    let mut file = vec![0; 4096];
    file[..9].copy_from_slice(&[0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a]);
    assert_eq!(Image::parse(file, MIB), Err(ImageError::Packed("lzo")));
    assert_eq!(Image::parse(zboot("lzo", &[0; 64]), MIB), Err(ImageError::Packed("lzo")));
}

/// `gzip -9`
const GZIP: &str = "
    1f8b0800000000000203edd33bad033100055197f93486600886e000886405818b00308485e022000c61212c848510080be1e9b5a9224d
    9362a6b9d5296f089fc5f04db7c7fdf9bfc735bc02e80dfd0efd06fd0afd847e40bf40dfa16fd057e80bf419fa047d843e407f5ce0ffa1
    dfa1dfa05fa19fd00fe817e83bf40dfa0a7d813e439fa08fd007e88f33fc3ff43bf41bf42bf413fa01fd027d87be415fa12fd067e813f4
    11fa00fd7182ff877e877e837e857e423fa05fa0efd037e82bf405fa0c7d823e426f666666666666666666666666666666666666666666
    6666bfdf1f763a786c00400000
";

/// `zstd -22 --ultra` from a pipe: a window of 128 MiB
const ZSTD: &str = "
    28b52ffd048825040062c51116c0ebfbffffff3fd6ef97d5e8f01e2b57aed4d8a04b01d7e536482de61e8cf2605e97db20b5987b30ca87
    795d6e83d462eec1282fe675b90d528bb907a37cfb98ff9fca21bf3e42a810e8ee6ff0d90c3208fc3308fe6f106cbf7738504b22922432
    2948314912914924c715939c24996492996292242499481a0e116b30f33304c701f2de
";

/// `xz --check=crc32 --arm64 --lzma2=lp=2,lc=2,dict=128MiB`
const XZ: &str = "
    fd377a585a0000016922de3602010a0021011e00756de6ede03fff004a6e00006dc04905c45ff0b88c6e339bba011bd4d68b9fd77302bf
    e75bb71f09201c7d616cae77ebc88c4659649632cfc5c7ab545e74ee4edd8a2260ca3f30fbc3acf77c5fb9c25f5a462a4600000000763a
    786c0001628080010000121614db3e300d8b020000000001595a
";

/// `lzma -9`
const LZMA: &str = "
    5d00000004ffffffffffffffff00006dc049099b5d703dd42410b8951e261751fc9895d72b2078f7e7e80d360f10e60e9b7470fa8ac2ac
    8409bc0a4bb47e509fa15bccb3695fdcd851fc9a79361fd43ad28e3455700b68e2f967aa775abee72b31364db2609265488b10289bf19a
    b000a69b0416f1e646835fd838b52bb4c60fc5177a49ae2f45ae1e41fab6d0f4fb90a3623ac429172c4c936cf41dde1f469ec4638ed4b1
    670ec39435a30df972b6fa51e8e3f6c35013b8d713cc7ef92101679090ffff51e00000
";

/// `lz4 -l -9`
const LZ4: &str = "
    02214c18890100001d0001002f10000100114041524d6408005ff00b0094000100281fe040002c1fd040002c1fc040002c1fb040002c1f
    a040002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f4040002c1f3040002c1f2040002c1f1040002c1f0040002c2f
    f00a00042c0f40002c1fd040002c1fc040002c1fb040002c1fa040002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f
    4040002c1f3040002c1f2040002c1f1040002c1f0040002c2ff00900042c0f40002c1fd040002c1fc040002c1fb040002c1fa040002c1f
    9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f4040002c1f3040002c1f2040002c1f1040002c1f0040002c2ff00800042c
    0f40002c1fd040002c1fc040002c1fb040002c1fa040002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f4040002c1f
    3040002c1f2040002c1e1040000f0100ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
    ffffffffffffffffff45500000000000
";

/// `lz4 -9`
const LZ4_FRAME: &str = "
    04224d186440a7890100001d0001002f10000100114041524d6408005ff00b0094000100281fe040002c1fd040002c1fc040002c1fb040
    002c1fa040002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f4040002c1f3040002c1f2040002c1f1040002c1f0040
    002c2ff00a00042c0f40002c1fd040002c1fc040002c1fb040002c1fa040002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040
    002c1f4040002c1f3040002c1f2040002c1f1040002c1f0040002c2ff00900042c0f40002c1fd040002c1fc040002c1fb040002c1fa040
    002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f4040002c1f3040002c1f2040002c1f1040002c1f0040002c2ff008
    00042c0f40002c1fd040002c1fc040002c1fb040002c1fa040002c1f9040002c1f8040002c1f7040002c1f6040002c1f5040002c1f4040
    002c1f3040002c1f2040002c1e1040000f0100ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
    ffffffffffffffffffffffff4550000000000000000000ee890005
";

/// `bzip2 -9`
const BZIP2: &str = "
    425a68393141592653597b087a4c000000ffffc0794000600040606002500044404000400044004000400040004000400040083000b2c3
    0000ff2a81a0008d54fdfaaa8341a068000492498988dfaa010da9b4e7961dea493f68cd2495772a554aad3ab0d6000000000000177777
    6cf2aaa6dc78e50db7e39ebbf3dfa00000001daaaaaaaaaaaab6db6dbcbf4c094040925013a483a80a572050924a1244201762ee48a70a
    120f610f4980
";
