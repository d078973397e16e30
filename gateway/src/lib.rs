//! skein-gateway
