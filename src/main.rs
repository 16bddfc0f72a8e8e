//! The `vitalbridge` program.

fn main() {}
