//! [`Anatomy`]: what a WebAssembly file says of itself, read without compiling it. Whether it serves is
//! for the sandbox to say.

use wasmparser::{
    ComponentExternName, Encoding, KnownCustom, Parser, Payload, ProducersSectionReader, TypeRef,
};

/// The interface that plugins export, without its version.
const HANDLER: &str = "scutwork:task/handler@";

/// A page of linear memory, in bytes.
const PAGE: u64 = 64 << 10;

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// Whether it is a component, and not a core module.
    pub is_component: bool,
    /// What it imports, each once: interfaces of a component, `module::name` of a core module.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What all its linear memories have at the start, in bytes.
    pub memory: u64,
    /// What it was written in and made with, as its toolchain says: `language Rust`, `clang 14.0.6`.
    pub producers: Vec<String>,
}

impl Anatomy {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When they are no WebAssembly, with the place.
    pub fn of(wasm: &[u8]) -> Result<Anatomy, String> {
        let mut anatomy = Anatomy::default();
        // Modules and components within the file are not its own imports and exports.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.map_err(|error| error.to_string())?;
            match payload {
                Payload::Version { encoding, .. } => {
                    if depth == 0 {
                        anatomy.is_component = encoding == Encoding::Component;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                payload => anatomy
                    .take(payload, depth == 1)
                    .map_err(|error| error.to_string())?,
            }
        }
        anatomy.producers.sort();
        anatomy.producers.dedup();
        Ok(anatomy)
    }

    fn take(&mut self, payload: Payload<'_>, is_outermost: bool) -> wasmparser::Result<()> {
        match payload {
            Payload::ComponentImportSection(section) if is_outermost => {
                for import in section {
                    let ComponentExternName { name, .. } = import?.name;
                    self.imports.push(name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if is_outermost => {
                for export in section {
                    let ComponentExternName { name, .. } = export?.name;
                    self.exports.push(name.to_owned());
                }
            }
            Payload::ImportSection(section) if is_outermost => {
                for import in section.into_imports() {
                    let import = import?;
                    if !matches!(import.ty, TypeRef::Memory(_)) {
                        self.imports
                            .push(format!("{}::{}", import.module, import.name));
                    }
                }
            }
            Payload::ExportSection(section) if is_outermost => {
                for export in section {
                    self.exports.push(export?.name.to_owned());
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let pages = memory?.initial;
                    self.memory = self.memory.saturating_add(pages.saturating_mul(PAGE));
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(producers) = section.as_known() {
                    self.take_producers(producers)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_producers(&mut self, section: ProducersSectionReader<'_>) -> wasmparser::Result<()> {
        for field in section {
            let field = field?;
            for value in field.values {
                let value = value?;
                let said = match field.name {
                    "language" => format!("language {} {}", value.name, value.version),
                    _ => format!("{} {}", value.name, value.version),
                };
                self.producers.push(said.trim_end().to_owned());
            }
        }
        Ok(())
    }

    /// The version of the contract that it was built for. None: it is no plugin of any.
    pub fn contract(&self) -> Option<&str> {
        self.exports
            .iter()
            .find_map(|export| export.strip_prefix(HANDLER))
            .filter(|_| self.is_component)
    }

    /// Whether it is a plugin's code without the component around it.
    pub fn is_unwrapped(&self) -> bool {
        !self.is_component && self.exports.iter().any(|name| name.starts_with(HANDLER))
    }

    /// Whether it imports from an interface, whatever the version: `wasi:http/outgoing-handler`.
    pub fn wants(&self, interface: &str) -> bool {
        self.imports.iter().any(|import| {
            import.strip_prefix(interface).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('@') || rest.starts_with('/')
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::embedded;

    #[test]
    fn a_plugin_tells_its_contract_its_imports_and_its_memory() {
        let anatomy = Anatomy::of(embedded::dots()).unwrap();
        assert!(anatomy.is_component);
        assert_eq!(anatomy.contract(), Some("0.1.0"));
        assert!(anatomy.wants("scutwork:task/control"), "{anatomy:?}");
        assert!(!anatomy.wants("wasi:http"), "{anatomy:?}");
        assert!(anatomy.memory >= PAGE, "{anatomy:?}");
        assert!(
            anatomy
                .producers
                .iter()
                .any(|said| said.starts_with("wit-component ")),
            "{anatomy:?}"
        );
    }

    #[test]
    fn what_is_no_webassembly_has_none() {
        assert!(Anatomy::of(b"hello, I am no plugin").is_err());
    }
}
