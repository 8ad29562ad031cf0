//! /sys: the few trees programs read.
#![forbid(unsafe_code)]
