//! The drivers against emulated devices that were written from the vendors' documents. No real device was there.

#![cfg(test)]

mod damage;
mod evita;
mod framing;
mod monitor;
mod schema;
mod serial_line;
mod talk;
