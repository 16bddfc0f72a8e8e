//! Device profiles as their authors meet them: what is refused and where, the directory, the page that teaches them.

#![cfg(test)]

mod broken;
mod directory;
mod page;
