//! How one list of keys becomes typed structs, their defaults, flags of the command line, and a
//! table that says how to read, print and describe each key.

use super::Scenario;
use super::program::Program;
use super::rule::Input;

/// A group of keys: a TOML table, or the top of the file when it has no name.
pub(crate) struct Section {
    /// Name of the table; empty for the top.
    pub name: &'static str,
    /// What the group is about.
    pub doc: &'static str,
    /// Its keys, in the order of the documents.
    pub keys: &'static [Key],
}

/// One key. The functions read and print the field of [`Scenario`] that belongs to it.
pub(crate) struct Key {
    /// Full name: `section.key`, or `key` at the top.
    pub path: &'static str,
    /// Name inside its section.
    pub name: &'static str,
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// What it does, one line of text a line.
    pub doc: &'static str,
    /// Programs that it means something to; empty: all.
    pub programs: &'static [Program],
    /// How its value is called in help texts.
    pub value_name: fn() -> &'static str,
    /// Allowed values.
    pub range: fn() -> String,
    /// Takes several values, each from a flag of its own.
    pub many: fn() -> bool,
    /// Is a switch, whose flag may stand without a value.
    pub switch: fn() -> bool,
    /// Puts a value into the scenario, or says what would be right instead.
    pub set: fn(&mut Scenario, &Input) -> Result<(), String>,
    /// The value in the scenario as TOML.
    pub print: fn(&Scenario) -> String,
}

impl Key {
    /// Whether it means something to a program.
    pub(crate) fn is_for(&self, program: Program) -> bool {
        self.programs.is_empty() || self.programs.contains(&program)
    }

    /// The names of the programs that it means something to.
    pub(crate) fn program_names(&self) -> String {
        let names: Vec<&str> = self.programs.iter().map(|program| program.name()).collect();
        names.join(", ")
    }
}

/// Every key.
pub(crate) fn all_keys() -> impl Iterator<Item = &'static Key> {
    super::keys::SECTIONS.iter().flat_map(|section| section.keys)
}

/// Every key that means something to a program.
pub(crate) fn keys_of(program: Program) -> impl Iterator<Item = &'static Key> {
    all_keys().filter(move |key| key.is_for(program))
}

/// The key of that full name.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    all_keys().find(|key| key.path == path)
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        [$section:literal] $member:ident: $type:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident($path:literal, $flag:literal, $programs:expr): $value:ty
                    = $default:expr, $rule:expr;
            )*
        }
    )*) => {
        /// All that a run is told. To be read with [`Sources`](super::Sources).
        #[derive(Debug, Clone, PartialEq)]
        pub struct Scenario {
            /// Which of the ready scenarios.
            pub program: Program,
            $($(#[doc = $section_doc])* pub $member: $type,)*
        }

        impl Scenario {
            /// Every key at its default, whatever the program.
            pub(super) fn bare(program: Program) -> Self {
                Self { program, $($member: $type { $($field: $default,)* },)* }
            }
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $type {
                $($(#[doc = $doc])* pub $field: $value,)*
            }
        )*

        /// Every key in its section, in the order of the documents.
        pub(crate) static SECTIONS: &[$crate::scenario::table::Section] = &[
            $($crate::scenario::table::Section {
                name: $section,
                doc: concat!($($section_doc, "\n"),*),
                keys: &[$($crate::scenario::table::Key {
                    path: $path,
                    name: $crate::scenario::table::last($path),
                    flag: $flag,
                    doc: concat!($($doc, "\n"),*),
                    programs: $programs,
                    value_name: || $crate::scenario::rule::Rule::<$value>::value_name(&$rule),
                    range: || $crate::scenario::rule::Rule::<$value>::range(&$rule),
                    many: || $crate::scenario::rule::Rule::<$value>::many(&$rule),
                    switch: || $crate::scenario::rule::Rule::<$value>::switch(&$rule),
                    set: |scenario, input| {
                        scenario.$member.$field =
                            $crate::scenario::rule::Rule::<$value>::read(&$rule, input)?;
                        Ok(())
                    },
                    print: |scenario| {
                        $crate::scenario::rule::Rule::<$value>::print(
                            &$rule,
                            &scenario.$member.$field,
                        )
                    },
                },)*],
            },)*
        ];
    };
}
pub(super) use settings;

/// What stands behind the last dot.
pub(crate) const fn last(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 && bytes[at - 1] != b'.' {
        at -= 1;
    }
    path.split_at(at).1
}

/// See [`last`].
pub(crate) fn last_of(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
