//! Runs Python programs that nobody has read.
//!
//! The program `rhumb` starts itself twice for every one of them, since only a process that has not begun its work can
//! give up its rights without unsafe code:
//!
//! 1. The outer stage leaves the network, the processes and the file systems of its parent (namespaces, a root of its
//!    own that holds the system's libraries and Python, all read-only, and an empty folder in memory). As root it
//!    becomes nobody.
//! 2. The inner stage, first process of the new namespace, takes limits (address space, file size, open files,
//!    processor time, no core), denies itself all other files (Landlock), starts Python with an empty environment, and
//!    ends it after the time limit. With the stage, every process of the namespace ends.
//! 3. Python's harness forbids further processes and threads, runs the program, and writes a verdict behind a random
//!    token.
//!
//! A program that looks for the token in the harness's frames can forge a pass; one that merely exits cannot.

mod files;
mod order;
mod python;
mod root;
mod run;
mod stage;

pub(crate) use order::Limits;
pub(crate) use run::{Ran, Sandbox};
pub(crate) use stage::stage;
