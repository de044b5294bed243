//! Import and export of what others have made: documents, layouts and trees that are meant to do harm, or that change
//! meanwhile. Nothing outside of the folder is read or written, and what can't be stored is told.

mod export;
mod import;
mod lab;
mod layouts;
mod names;
mod registries;
mod sizes;
