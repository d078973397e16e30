//! Compiles the `.proto` files with a pure-Rust compiler, so that no `protoc` is needed.

use std::io::Result;

const FILES: [&str; 1] = ["proto/skein/v1/frame.proto"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"]).map_err(std::io::Error::other)?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)
}
