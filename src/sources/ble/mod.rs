//! Bluetooth Low Energy: the connection policy as a pure machine, and the source that talks to BlueZ.
pub mod address;
pub mod policy;
mod radio;
pub mod sensor;
pub use radio::*;
