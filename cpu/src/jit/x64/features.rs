//! Which optional instructions the host has.

use std::arch::is_x86_feature_detected;
use std::sync::LazyLock;

macro_rules! host_features {
    ($($(#[$doc:meta])* $field:ident = $name:tt,)*) => {
        /// Optional instructions of the host, as CPUID and the operating system offer them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct HostFeatures {
            $($(#[$doc])* pub(crate) $field: bool,)*
        }

        impl HostFeatures {
            fn detect() -> Self {
                Self { $($field: is_x86_feature_detected!($name),)* }
            }
        }
    };
}

host_features! {
    /// PSHUFB, PABSx, PALIGNR, PHADDx, PMADDUBSW.
    ssse3 = "ssse3",
    /// PMULLD, PMINx and PMAXx of all types, PMOVSX, PMOVZX, ROUNDx, PINSRx, PEXTRx, BLENDVx, PTEST.
    sse4_1 = "sse4.1",
    /// CRC32, PCMPGTQ.
    sse4_2 = "sse4.2",
    /// POPCNT.
    popcnt = "popcnt",
    /// VEX forms of the 128-bit instructions.
    avx = "avx",
    /// VPSLLVx, VPSRLVx, VPSRAVD, VPBROADCASTx.
    avx2 = "avx2",
    /// VFMADD, VFMSUB, VFNMADD, VFNMSUB.
    fma = "fma",
    /// VCVTPH2PS, VCVTPS2PH.
    f16c = "f16c",
    /// ANDN, BEXTR, TZCNT.
    bmi1 = "bmi1",
    /// SHLX, SHRX, SARX, RORX, MULX, BZHI, PDEP, PEXT.
    bmi2 = "bmi2",
    /// LZCNT; without it the same encoding is BSR.
    lzcnt = "lzcnt",
    /// MOVBE.
    movbe = "movbe",
    /// AESENC, AESDEC and the rest of AES-NI.
    aes = "aes",
    /// PCLMULQDQ.
    pclmulqdq = "pclmulqdq",
    /// SHA1x, SHA256x.
    sha = "sha",
    /// CMPXCHG16B.
    cmpxchg16b = "cmpxchg16b",
}

impl HostFeatures {
    /// Those of this host, asked for once.
    pub(crate) fn get() -> &'static Self {
        #[cfg(test)]
        if let Some(limited) = LIMITED.get() {
            return limited;
        }
        static FEATURES: LazyLock<HostFeatures> = LazyLock::new(HostFeatures::detect);
        &FEATURES
    }
}

#[cfg(test)]
thread_local! {
    static LIMITED: std::cell::Cell<Option<&'static HostFeatures>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
impl HostFeatures {
    /// What this thread finds from now on: what the host has after `limit`.
    pub(crate) fn limit(limit: impl FnOnce(&mut Self)) {
        let mut features = Self::detect();
        limit(&mut features);
        LIMITED.set(Some(Box::leak(Box::new(features))));
    }
}
