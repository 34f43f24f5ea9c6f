//! What tests share: folders, nodes, built plugins, and waiting for events.
