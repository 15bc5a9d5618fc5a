//! Writes a man page for every command into a folder: `cargo xtask man [FOLDER]`.

use std::path::PathBuf;

use clap::CommandFactory;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/man"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    clap_mangen::generate_to(llama_orch::arguments::Arguments::command(), folder)
}
