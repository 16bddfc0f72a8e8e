//! The one integration binary.
#![cfg(test)]

mod ble;
mod ble_faults;
mod ble_load;
mod ble_whole;
mod bluetooth;
mod bluetooth_api;
mod bluez;
mod bridge;
mod broker;
mod cli;
mod dashboard;
mod day;
mod decode;
mod drivers;
mod emulate;
mod encode;
mod fake_bluez;
mod mqtt;
mod oximeter;
mod ports;
mod profiles;
mod replay;
mod serial;
mod server;
mod service;
mod sim;
mod simulator;
mod store;
mod tidy;
mod trial;
mod waves;
mod whole;
