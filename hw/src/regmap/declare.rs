//! The macro that declares a register map.

/// Declares a register map.
///
/// ```
/// hw::register_map! {
///     /// A two-register device. Some manual, chapter 3.
///     pub enum DemoReg {
///         // name @ offset: bytes access(writable bits) = reset, section
///         CTRL   @ 0x00: 4 Rw(0x73) = 0, "3.1" {
///             // NAME[high:low] or NAME[bit], description
///             MODE[6:4] "how fast" fixed(ON);
///             ON[0] "it runs";
///             TURBO[1] "faster still" only(TURBO);
///         };
///         /// A remark: what it says, unless its fields do.
///         STATUS @ 0x04: 4 W1c(0x1) = 0, "3.2";
///         // name[count; stride] @ offset ...
///         /// Where data lie. They show at another place too, and cannot be moved while it runs.
///         DATA[4; 8] @ 0x10: 8 Rw(u64::MAX) = 0, "3.3" also(0x110) fixed(ON);
///         /// And how far it goes, if the sources don't show it; a name with spaces stands behind that of the enum.
///         HINT "A Hint" @ 0x30: 4 Rw(0x1) = 0, "3.4", Storage;
///     }
///     /// What they depend on: a register or field exists `only` if all hold that it names, and is `fixed` while one of them does.
///     pub enum DemoCondition {
///         TURBO "the device has a turbo";
///         ON "CTRL.ON is 1";
///     }
/// }
/// use hw::regmap::RegisterMap;
/// let data = DemoReg::locate(0x1c).unwrap();
/// assert_eq!((data.reg, data.index, data.byte), (DemoReg::DATA, 1, 4));
/// assert_eq!(DemoReg::CTRL.info().written(0, 0xff), 0x73);
/// assert_eq!(DemoReg::CTRL.written(0, 0xff, 0xff, |condition| condition == DemoCondition::ON), 0x1);
/// ```
#[macro_export]
macro_rules! register_map {
    (
        @map [$condition:ty] [$($conditions:ident)*]
        $(#[doc = $doc:literal])*
        $vis:vis enum $map:ident {
            $(
                $(#[doc = $regdoc:literal])*
                $name:ident $($title:literal)? $([$count:expr; $stride:expr])? @ $offset:tt : $bytes:literal
                $access:ident($writable:expr) = $reset:expr, $section:literal $(, $status:ident)?
                $(also($($alias:literal),+))? $(only($($only:ident),+))? $(fixed($($fixed:ident),+))?
                $({ $(
                    $field:ident [$high:literal $(: $low:literal)?] $text:literal
                    $(only($($field_only:ident),+))? $(fixed($($field_fixed:ident),+))?;
                )* })?
                ;
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, missing_docs, reason = "registers are named as in their specification")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $map {
            $( $(#[doc = $regdoc])* $name, )*
        }

        #[allow(dead_code, reason = "not every device asks for its offsets")]
        impl $map {
            /// Offset in bytes in the device's window, of the first of a row.
            #[must_use]
            $vis const fn offset(self) -> u64 {
                <Self as $crate::regmap::RegisterMap>::ALL[self as usize].1.offset
            }

            /// Offset of one of a row.
            #[must_use]
            $vis const fn at(self, index: u64) -> u64 {
                let info = &<Self as $crate::regmap::RegisterMap>::ALL[self as usize].1;
                info.offset + index * info.stride
            }
        }

        /// The offset, of the first of a row.
        impl From<$map> for u64 {
            fn from(reg: $map) -> Self {
                reg.offset()
            }
        }

        impl $crate::regmap::RegisterMap for $map {
            const ALL: &'static [(Self, $crate::regmap::RegisterInfo)] = &[
                $((
                    $map::$name,
                    $crate::regmap::RegisterInfo {
                        name: $crate::register_map!(@name $name $($title)?),
                        ident: stringify!($name),
                        offset: $offset,
                        bytes: $bytes,
                        count: $crate::register_map!(@count $($count)?),
                        stride: $crate::register_map!(@stride $bytes $(, $stride)?),
                        access: $crate::regmap::Access::$access,
                        writable: $writable,
                        reset: $reset,
                        section: $section,
                        status: $crate::register_map!(@status $($status)?),
                        remark: concat!($($regdoc, "\n",)*),
                        aliases: &[$($($alias),+)?],
                        only: &[$($(<$condition>::$only.described()),+)?],
                        fixed: &[$($(<$condition>::$fixed.described()),+)?],
                        fields: &[$($($crate::regmap::Field {
                            name: stringify!($field),
                            high: $high,
                            low: $crate::register_map!(@low $high $(, $low)?),
                            text: $text,
                            only: &[$($(<$condition>::$field_only.described()),+)?],
                            fixed: &[$($(<$condition>::$field_fixed.described()),+)?],
                        }),*)?],
                    },
                ),)*
            ];

            const ABOUT: &'static str = concat!($($doc, "\n",)*);

            type Condition = $condition;

            const CONDITIONS: &'static [$condition] = &[$(<$condition>::$conditions),*];

            const PLACES: &'static [$crate::regmap::Place] =
                &$crate::regmap::places::<Self, { [$(stringify!($name)),*].len() }>(Self::ALL);

            const IS_ASCENDING: bool = $crate::regmap::is_ascending(Self::PLACES);

            fn number(self) -> usize {
                self as usize
            }
        }
    };
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $title:literal) => { $title };
    (@status) => { None };
    (@status $status:ident) => { Some($crate::regmap::Status::$status) };
    (@count) => { 1 };
    (@count $count:expr) => { $count };
    (@stride $bytes:literal) => { $bytes };
    (@stride $bytes:literal, $stride:expr) => { $stride };
    (@low $high:literal) => { $high };
    (@low $high:literal, $low:literal) => { $low };
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $map:ident { $($registers:tt)* }
    ) => {
        $crate::register_map! {
            @map [$crate::regmap::Unconditional] []
            $(#[doc = $doc])*
            $vis enum $map { $($registers)* }
        }
    };
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $map:ident { $($registers:tt)* }
        $(#[doc = $about:literal])*
        $of:vis enum $condition:ident { $( $name:ident $text:literal; )* }
    ) => {
        $(#[doc = $about])*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "conditions are named as the fields that tell of them")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $of enum $condition {
            $( #[doc = $text] $name, )*
        }

        impl $condition {
            /// As a part of a description.
            const fn described(self) -> $crate::regmap::Condition {
                const TEXTS: &[&str] = &[$($text),*];
                $crate::regmap::Condition { number: self as usize, text: TEXTS[self as usize] }
            }
        }

        $crate::register_map! {
            @map [$condition] [$($name)*]
            $(#[doc = $doc])*
            $vis enum $map { $($registers)* }
        }
    };
}
