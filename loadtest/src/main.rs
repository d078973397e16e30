//! `skein-load`: how many users does a gateway hold, at which latency, and why not more?

fn main() {}
