//! /dev and /dev/pts: character devices, pseudo-terminals and the line discipline.
#![forbid(unsafe_code)]
