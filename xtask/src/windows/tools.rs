//! What building for Windows and running there takes, and getting it where that is ours to do.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::succeeds;
use crate::setup::install_packages;

/// The target that every Windows on a PC runs, and that needs no linker of Microsoft's.
pub(crate) const TARGET: &str = "x86_64-pc-windows-gnu";
/// C parts (SQLite, cryptography) and linking.
pub(super) const C_COMPILER: &str = "x86_64-w64-mingw32-gcc";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Which Rust has a standard library for Windows here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tools {
    /// The one that runs us, with the target added by rustup.
    Rustup,
    /// Debian's, which builds the standard library from its source package first.
    Debian,
}

impl Tools {
    /// `cargo build` for Windows, without packages.
    pub(super) fn cargo_build(self) -> Command {
        match self {
            Tools::Rustup => {
                let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.args(["build", "--target", TARGET]);
                command
            }
            Tools::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                command.args(["build", "--target", TARGET, "-Zbuild-std=std,panic_abort"]);
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

/// The tools; else what is missing, as Debian's packages.
pub(crate) fn find_or_install() -> Result<Tools, String> {
    let missing = missing_packages();
    if !missing.is_empty() {
        eprintln!("installing what the Windows scenarios need: {}", missing.join(", "));
        install_packages(&missing).map_err(|error| format!("{} ({error:#})", missing.join(", ")))?;
    }
    let still = missing_packages();
    if still.is_empty() { Ok(present_rust()) } else { Err(still.join(", ")) }
}

fn present_rust() -> Tools {
    if has_rustup_target() { Tools::Rustup } else { Tools::Debian }
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !has_rustup_target() && !has_debian_rust() {
        missing.extend(["rustc-web", "cargo-web", "rust-web-src"]);
    }
    if !succeeds(C_COMPILER, &["--version"]) {
        missing.push("gcc-mingw-w64-x86-64");
    }
    if !succeeds("wine", &["--version"]) || !succeeds("wineserver", &["--version"]) {
        missing.push("wine");
    }
    missing
}

fn has_rustup_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    sysroot_holds(Path::new(&rustc), &format!("lib/rustlib/{TARGET}/lib"))
}

fn has_debian_rust() -> bool {
    Path::new(DEBIAN_CARGO).exists()
        && sysroot_holds(Path::new(DEBIAN_RUSTC), "lib/rustlib/src/rust/library/Cargo.lock")
}

fn sysroot_holds(rustc: &Path, path: &str) -> bool {
    let output = Command::new(rustc).args(["--print", "sysroot"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(path).exists())
}
