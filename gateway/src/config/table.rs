//! How one list of keys becomes typed structs, their defaults and a table that says how to read,
//! print and describe each key.

use super::Config;
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

/// One key. The functions read and print the field of [`Config`] that belongs to it.
pub(crate) struct Key {
    /// Full name: `section.key`, or `key` at the top.
    pub path: &'static str,
    /// Name inside its section.
    pub name: &'static str,
    /// What it does, one line of text a line.
    pub doc: &'static str,
    /// Unit or kind of the value.
    pub unit: fn() -> &'static str,
    /// Allowed values; empty when the unit says it all.
    pub range: fn() -> String,
    /// Puts a value into the configuration, or says what would be right instead.
    pub set: fn(&mut Config, &Input) -> Result<(), String>,
    /// The value in the configuration as TOML.
    pub print: fn(&Config) -> String,
    /// Gives the first configuration the value of the second.
    pub copy: fn(&mut Config, &Config),
}

impl Key {
    /// Name of its environment variable: `SKEIN_LIMITS__MAX_SESSIONS`.
    pub(crate) fn variable(&self) -> String {
        format!("SKEIN_{}", self.path.replace('.', "__").to_uppercase())
    }
}

/// Every key.
pub(crate) fn keys() -> impl Iterator<Item = &'static Key> {
    super::SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of that full name.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

macro_rules! settings {
    (
        $(#[doc = $root_doc:literal])*
        $root:ident {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr, $rule:expr;)*
        }
        $(
            $(#[doc = $section_doc:literal])*
            $section:ident: $section_type:ident {
                $($(#[doc = $key_doc:literal])* $key:ident: $key_type:ty
                    = $key_default:expr, $key_rule:expr;)*
            }
        )*
    ) => {
        $(#[doc = $root_doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $root {
            $($(#[doc = $doc])* pub $field: $type,)*
            $($(#[doc = $section_doc])* pub $section: $section_type,)*
        }

        impl Default for $root {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($section: $section_type::default(),)*
                }
            }
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $section_type {
                $($(#[doc = $key_doc])* pub $key: $key_type,)*
            }

            impl Default for $section_type {
                fn default() -> Self {
                    Self { $($key: $key_default,)* }
                }
            }
        )*

        /// Every key in its section, in the order of the documents.
        pub(crate) static SECTIONS: &[$crate::config::table::Section] = &[
            $crate::config::table::Section {
                name: "",
                doc: concat!($($root_doc, "\n"),*),
                keys: &[$($crate::config::table::Key {
                    path: stringify!($field),
                    name: stringify!($field),
                    doc: concat!($($doc, "\n"),*),
                    unit: || $crate::config::rule::Rule::<$type>::unit(&$rule),
                    range: || $crate::config::rule::Rule::<$type>::range(&$rule),
                    set: |config, input| {
                        config.$field = $crate::config::rule::Rule::<$type>::read(&$rule, input)?;
                        Ok(())
                    },
                    print: |config| {
                        $crate::config::rule::Rule::<$type>::print(&$rule, &config.$field)
                    },
                    copy: |to, from| to.$field.clone_from(&from.$field),
                },)*],
            },
            $($crate::config::table::Section {
                name: stringify!($section),
                doc: concat!($($section_doc, "\n"),*),
                keys: &[$($crate::config::table::Key {
                    path: concat!(stringify!($section), ".", stringify!($key)),
                    name: stringify!($key),
                    doc: concat!($($key_doc, "\n"),*),
                    unit: || $crate::config::rule::Rule::<$key_type>::unit(&$key_rule),
                    range: || $crate::config::rule::Rule::<$key_type>::range(&$key_rule),
                    set: |config, input| {
                        config.$section.$key =
                            $crate::config::rule::Rule::<$key_type>::read(&$key_rule, input)?;
                        Ok(())
                    },
                    print: |config| {
                        $crate::config::rule::Rule::<$key_type>::print(
                            &$key_rule,
                            &config.$section.$key,
                        )
                    },
                    copy: |to, from| to.$section.$key.clone_from(&from.$section.$key),
                },)*],
            },)*
        ];
    };
}
pub(super) use settings;
