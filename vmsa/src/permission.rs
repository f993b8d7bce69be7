//! Who may do what with a page: the stage 1 permission rules (D8.4).

use crate::LeafDescriptor;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch, or a device's execute request.
    Execute,
}

/// An access as far as permissions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// Whether it is made with privilege (EL1; a device's privileged mode request).
    pub privileged: bool,
}

/// What changes the meaning of the permission bits, apart from PAN, which changes too often to be kept with a
/// translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stage1Rules {
    /// Writable memory is never executable (SCTLR_ELx.WXN, CD.WXN).
    pub wxn: bool,
    /// The regime has an unprivileged side (EL1&0, EL2&0). Where it has none, AP\[1\] is RES1 and UXN is XN.
    pub has_el0: bool,
}

impl Stage1Rules {
    /// The EL1&0 regime without WXN.
    pub const EL1_AND_EL0: Self = Self { wxn: false, has_el0: true };
}

/// The six permissions of a page, in one byte: small enough for a TLB entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u8);

impl Permissions {
    /// Unprivileged read.
    pub const UR: Self = Self(1 << 0);
    /// Unprivileged write.
    pub const UW: Self = Self(1 << 1);
    /// Unprivileged execute.
    pub const UX: Self = Self(1 << 2);
    /// Privileged read.
    pub const PR: Self = Self(1 << 3);
    /// Privileged write.
    pub const PW: Self = Self(1 << 4);
    /// Privileged execute.
    pub const PX: Self = Self(1 << 5);
    /// Everything for everyone: memory behind no stage 1 tables.
    pub const ALL: Self = Self(0x3f);
    /// Nothing for anyone.
    pub const NONE: Self = Self(0);

    /// The permissions that stage 1 attributes give, table attributes already folded in.
    #[inline]
    #[must_use]
    pub const fn stage1(leaf: LeafDescriptor, rules: Stage1Rules) -> Self {
        let (el0, write) = (leaf.ap_el0(), !leaf.ap_read_only());
        if !rules.has_el0 {
            let execute = !(leaf.uxn() || rules.wxn && write);
            return Self::PR.plus(Self::PW, write).plus(Self::PX, execute);
        }
        let unprivileged_write = el0 && write;
        // D8.4.1: what EL0 can write, EL1 never executes.
        let px = !(leaf.pxn() || unprivileged_write || rules.wxn && write);
        let ux = !(leaf.uxn() || rules.wxn && unprivileged_write);
        Self::PR
            .plus(Self::PW, write)
            .plus(Self::PX, px)
            .plus(Self::UR, el0)
            .plus(Self::UW, unprivileged_write)
            .plus(Self::UX, ux)
    }

    #[inline]
    const fn plus(self, other: Self, condition: bool) -> Self {
        if condition { Self(self.0 | other.0) } else { self }
    }

    /// The permissions that are left for who may not write.
    #[inline]
    #[must_use]
    pub const fn without_writes(self) -> Self {
        Self(self.0 & !(Self::UW.0 | Self::PW.0))
    }

    /// What privileged accesses may do, for everyone: where a regime has no unprivileged side.
    #[inline]
    #[must_use]
    pub const fn privileged_for_all(self) -> Self {
        Self(self.0 & 0b11_1000 | self.0 >> 3)
    }

    /// Whether all of `other` is in here.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What both give: how stages combine.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either gives.
    #[inline]
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `access` may go on. With `pan`, privileged data accesses to what EL0 can read fault (D8.4.5).
    #[inline]
    #[must_use]
    pub const fn allow(self, access: Access, pan: bool) -> bool {
        let needed = match (access.privileged, access.kind) {
            (false, AccessKind::Read) => Self::UR,
            (false, AccessKind::Write) => Self::UW,
            (false, AccessKind::Execute) => Self::UX,
            (true, AccessKind::Read) => Self::PR,
            (true, AccessKind::Write) => Self::PW,
            (true, AccessKind::Execute) => Self::PX,
        };
        let refused_by_pan = pan
            && access.privileged
            && !matches!(access.kind, AccessKind::Execute)
            && self.contains(Self::UR);
        self.contains(needed) && !refused_by_pan
    }

    /// The six bits: UR, UW, UX, PR, PW, PX from bit 0.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From the six bits; others are dropped.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}
