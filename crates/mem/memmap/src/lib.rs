//! The hinge between files and address spaces: what a mappable object gives a mapping.
#![forbid(unsafe_code)]
