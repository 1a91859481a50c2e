//! Prints the `CustomResourceDefinition`; `make crds` writes it to `crds/websocketroutes.yaml`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout()
        .lock()
        .write_all(crds::custom_resource_definition_yaml().as_bytes())
}
