//! A database and a broker must prove who they are, where a service is told what to hold them to.
