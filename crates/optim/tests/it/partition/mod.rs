//! Which tensor is cut how, and what it costs.

pub(crate) mod models;
mod presets;
mod strict;
mod table;
