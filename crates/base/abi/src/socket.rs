//! Sockets: families, addresses, options, messages (`socket(2)`, `unix(7)`).
