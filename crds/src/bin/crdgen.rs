//! Prints the `CustomResourceDefinition` of one kind, named in the plural; `make crds` writes it to `crds/PLURAL.yaml`.

use std::env;
use std::io::{self, Write};

fn main() -> io::Result<()> {
    let plural = env::args().nth(1).unwrap_or_default();
    let Some(text) = crds::custom_resource_definition_yaml(&plural) else {
        return Err(io::Error::other(
            "name a kind: websocketroutes or externalbackends",
        ));
    };
    io::stdout().lock().write_all(text.as_bytes())
}
