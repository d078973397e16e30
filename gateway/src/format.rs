//! Which version of Skein a data folder belongs to, so that an older one does not misread it.
//!
//! `DATA/format.json` names the format of the folder and the program that used it last. A program
//! takes a folder of its own format or an older one; what is newer it refuses, and names the program
//! to use. The stores have versions of their own beside this: the format is of everything in the
//! folder together.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::whole_file::{self, Access};

/// Format of the data folder that this program writes. Raise it when an older program would misread
/// or lose something that is in the folder.
pub const FORMAT: u32 = 1;

const NAME: &str = "format.json";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Of the folder.
    pub format: u32,
    /// Version of the program that used it last.
    pub skein: String,
}

impl Mark {
    /// This program's.
    pub fn own() -> Self {
        #[cfg(debug_assertions)]
        if let Some(mark) = crate::planted::version() {
            return mark;
        }
        Self { format: FORMAT, skein: env!("CARGO_PKG_VERSION").into() }
    }
}

/// Why the folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A newer program has used it.
    #[error(
        "the data folder {} was last used by skein {}, in format {}; this is skein {}, which knows \
         formats up to {}: run skein {} or later, or restore a backup from before the upgrade",
        path.display(), found.skein, found.format, own.skein, own.format, found.skein
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: Mark,
        /// This program.
        own: Mark,
    },
    /// The file cannot be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Checks that this program may use the folder, which it has locked, and says so in it.
///
/// # Errors
/// See [`FormatError`]; nothing has been changed then.
pub fn claim(data: &Path) -> Result<(), FormatError> {
    let path = data.join(NAME);
    let failed = |why: String| FormatError::File { path: path.clone(), why };
    let own = Mark::own();
    let found = match std::fs::read(&path) {
        Ok(text) => {
            let found: Mark = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
            if found.format > own.format {
                return Err(FormatError::Newer { path: data.into(), found, own });
            }
            Some(found)
        }
        // A new folder, or one from before there was this file: format 1.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error.to_string())),
    };
    if found.as_ref() == Some(&own) {
        return Ok(());
    }
    if let Some(found) = found.filter(|found| found.skein != own.skein) {
        tracing::info!(from = %found.skein, to = %own.skein, "another version takes the folder over");
    }
    write(&path, &own).map_err(|error| failed(error.to_string()))
}

fn write(path: &Path, mark: &Mark) -> io::Result<()> {
    let mut text = serde_json::to_vec(mark)?;
    text.push(b'\n');
    whole_file::put(path, &text, Access::Owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_over_and_never_by_an_older_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        claim(dir.path()).unwrap();
        let own = Mark { format: FORMAT, skein: env!("CARGO_PKG_VERSION").into() };
        let there = || serde_json::from_slice::<Mark>(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(there(), own);
        // The same format, whoever wrote it.
        write(&path, &Mark { format: FORMAT, skein: "9.9.9".into() }).unwrap();
        claim(dir.path()).unwrap();
        assert_eq!(there(), own);

        let newer = Mark { format: FORMAT + 1, skein: "9.9.9".into() };
        write(&path, &newer).unwrap();
        let error = claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("last used by skein 9.9.9, in format 2"), "{error}");
        assert!(error.contains("run skein 9.9.9 or later"), "{error}");
        assert_eq!(there(), newer);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(claim(dir.path()), Err(FormatError::File { .. })));
    }
}
