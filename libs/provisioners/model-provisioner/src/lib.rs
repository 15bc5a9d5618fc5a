//! Models: fetched from a hub, or made up where there is no network.
//!
//! A model appears under its name only when it is whole and its checksum is right; whatever is interrupted leaves
//! nothing that an engine could load. This crate deliberately knows no instance and no engine: it is told where a
//! home's models lie and says where the file is.
//!
//! Read first: [`fetch`], which brings a [`HubModel`] into a home, and [`write_tiny_model`], which makes one.

mod download;
mod faults;
mod hub;
mod reference;
mod tiny_model;

pub use download::{Progress, SilentProgress};
pub use hub::{Hub, fetch};
pub use reference::HubModel;
pub use tiny_model::{TinyModel, write_tiny_model};
