//! Compiling guest programs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there is no binary.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder of programs cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no compiler to run.
    #[error("gcc: {0}")]
    NoCompiler(io::Error),
    /// The compiler refused the program.
    #[error("{}: gcc failed:\n{errors}", path.display())]
    Refused {
        /// The source.
        path: PathBuf,
        /// What gcc said.
        errors: String,
    },
}

/// A guest program: its name and its source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The file's stem.
    pub name: String,
    /// The C file.
    pub source: PathBuf,
}

/// All programs of `tests/guest/`, by name.
///
/// # Errors
/// [`BuildError::Folder`].
pub fn programs() -> Result<Vec<Program>, BuildError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let unreadable = |source| BuildError::Folder { path: folder.clone(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let source = entry.map_err(unreadable)?.path();
        if source.extension().is_some_and(|ext| ext == "c") {
            let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Program { name, source });
        }
    }
    found.sort();
    Ok(found)
}

/// Compiles `program` into `folder`; the binary's path.
///
/// # Errors
/// [`BuildError::NoCompiler`], [`BuildError::Refused`].
pub fn build(program: &Program, folder: &Path) -> Result<PathBuf, BuildError> {
    let binary = folder.join(&program.name);
    compile(&program.source, &binary)?;
    Ok(binary)
}

/// Compiles a C file into `binary`; static, so that it needs nothing from the root file system it runs in.
///
/// # Errors
/// [`BuildError::NoCompiler`], [`BuildError::Refused`].
pub fn compile(source: &Path, binary: &Path) -> Result<(), BuildError> {
    let output = Command::new("gcc")
        // No warnings: a guest program passes bad arguments because they are bad.
        .args(["-std=gnu11", "-O1", "-w", "-static", "-pthread", "-o"])
        .args([binary, source])
        .stdin(Stdio::null())
        .output()
        .map_err(BuildError::NoCompiler)?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Refused { path: source.to_owned(), errors });
    }
    Ok(())
}
