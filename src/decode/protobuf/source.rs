//! From a registered schema to linked descriptors: texts parsed, imports found, names resolved. What of them matters to
//! decoding is not known here.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::uninterpreted_option::NamePart;
use prost_reflect::prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, UninterpretedOption};
use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};

use super::well_known;
use crate::error::{Error, Result};
use crate::ports::RegisteredSchema;

/// What the schema itself is called among its imports.
const ITSELF: &str = "the schema itself";

/// A schema's file, linked with all that it imports.
pub(super) struct Linked {
    /// The file.
    pub(super) file: FileDescriptor,
    /// Names of the files in the language of editions, which the descriptors show as proto3.
    pub(super) editions: HashSet<String>,
    entries: Entries,
}

/// Which messages that stand for a map's entries are messages to whoever counts them: all of a descriptor; of a text
/// those written out in it, not those that `map<…>` implies.
enum Entries {
    All,
    Written(HashSet<String>),
}

impl Linked {
    /// True where an index among the file's messages counts this one.
    pub(super) fn counts(&self, message: &MessageDescriptor) -> bool {
        match &self.entries {
            Entries::All => true,
            Entries::Written(names) => !message.is_map_entry() || names.contains(message.full_name()),
        }
    }
}

/// Reads a schema and what it refers to.
pub(super) fn link(registered: &RegisteredSchema) -> Result<Linked> {
    let mut linker = Linker { pool: DescriptorPool::new(), editions: HashSet::new(), entries: Entries::All };
    for (path, reference) in &registered.references {
        linker.add(path, &reference.text)?;
    }
    linker.add(ITSELF, &registered.text)?;
    let file = linker.pool.get_file_by_name(ITSELF).ok_or_else(|| Error::bug("a file that was added is not there"))?;
    Ok(Linked { file, editions: linker.editions, entries: linker.entries })
}

struct Linker {
    pool: DescriptorPool,
    editions: HashSet<String>,
    /// Of the file added last.
    entries: Entries,
}

impl Linker {
    fn add(&mut self, path: &str, text: &str) -> Result<()> {
        if self.pool.get_file_by_name(path).is_some() {
            return Ok(());
        }
        let invalid = |what: &str| Error::invalid_record(format!("read Protobuf schema: {what}"));
        let encoded = STANDARD.decode(text.trim()).ok().filter(|bytes| !bytes.is_empty());
        if let Some(mut bytes) = encoded {
            let file = FileDescriptorProto::decode(bytes.as_slice())
                .map_err(|e| invalid("the bytes are no file descriptor").with_source(e))?;
            self.add_well_known(&file)?;
            self.entries = Entries::All;
            // Of a field that comes twice the last counts; changing it in place would lose the extensions.
            FileDescriptorProto { name: Some(path.to_owned()), ..FileDescriptorProto::default() }
                .encode(&mut bytes)
                .map_err(|e| Error::bug("encode a file's name").with_source(e))?;
            if file.syntax() == "editions" {
                self.editions.insert(path.to_owned());
                FileDescriptorProto { syntax: Some("proto3".to_owned()), ..FileDescriptorProto::default() }
                    .encode(&mut bytes)
                    .map_err(|e| Error::bug("encode a file's syntax").with_source(e))?;
            }
            return self
                .pool
                .decode_file_descriptor_proto(bytes.as_slice())
                .map_err(|e| invalid("the file descriptor does not hold together").with_source(e));
        }
        let text = match as_proto3(text) {
            Some(text) => {
                self.editions.insert(path.to_owned());
                text
            }
            None => text.to_owned(),
        };
        let mut file = protox_parse::parse(path, &text)
            .map_err(|e| invalid(&format!("`{path}` is no valid text")).with_source(e))?;
        let (mut written, package) = (HashSet::new(), file.package().to_owned());
        file.message_type.iter_mut().for_each(|message| mark_entries(message, &package, &mut written));
        let added = self.add_parsed(file);
        self.entries = Entries::Written(written);
        added.map_err(|e| invalid(&format!("`{path}` does not hold together")).with_source(e))
    }

    /// Imports that nobody has are left out: most often only options come from them, and a type that does is named
    /// in the error.
    fn add_parsed(&mut self, mut file: FileDescriptorProto) -> Result<()> {
        self.add_well_known(&file)?;
        let known = |path: &String| self.pool.get_file_by_name(path).is_some();
        let public: HashSet<String> = file
            .public_dependency
            .iter()
            .filter_map(|i| file.dependency.get(usize::try_from(*i).ok()?).cloned())
            .collect();
        file.dependency.retain(known);
        file.public_dependency =
            (0..).zip(&file.dependency).filter(|(_, path)| public.contains(*path)).map(|(index, _)| index).collect();
        file.weak_dependency.clear();
        let own = file.package() == "confluent";
        if !own {
            file.extension.clear();
        }
        file.service.clear();
        strip_file(&mut file);
        let meta = "confluent/meta.proto";
        if file.message_type.iter().any(has_meta) && !file.dependency.iter().any(|path| path == meta) {
            self.add_imported(meta)?;
            file.dependency.push(meta.to_owned());
        }
        self.pool.add_file_descriptor_proto(file).map_err(|e| Error::invalid_record("link descriptors").with_source(e))
    }

    fn add_well_known(&mut self, file: &FileDescriptorProto) -> Result<()> {
        file.dependency.iter().try_for_each(|path| self.add_imported(path))
    }

    fn add_imported(&mut self, path: &str) -> Result<()> {
        if self.pool.get_file_by_name(path).is_some() {
            return Ok(());
        }
        if let Some(file) = well_known::descriptor(path) {
            return self.add_parsed(file);
        }
        well_known::text(path).map_or(Ok(()), |text| self.add(path, &text))
    }
}

/// The text with `syntax = "proto3"` where it says `edition = …`: the parser knows no editions, and their grammar is
/// proto3's but for default values and what only extensions need.
fn as_proto3(text: &str) -> Option<String> {
    let mut rest = text.trim_start();
    while let Some(end) = match rest.get(..2) {
        Some("//") => Some(rest.find('\n').unwrap_or(rest.len())),
        Some("/*") => rest.find("*/").map(|end| end + 2),
        _ => None,
    } {
        rest = rest[end..].trim_start();
    }
    let statement = rest.strip_prefix("edition")?.trim_start().strip_prefix('=')?;
    Some(format!("{}syntax = \"proto3\"{}", &text[..text.len() - rest.len()], &statement[statement.find(';')?..]))
}

/// Marks the messages that say to be a map's entries as such, as Java's registry client writes them, and collects their
/// names.
fn mark_entries(message: &mut DescriptorProto, scope: &str, written: &mut HashSet<String>) {
    let name = if scope.is_empty() { message.name().to_owned() } else { format!("{scope}.{}", message.name()) };
    message.nested_type.iter_mut().for_each(|nested| mark_entries(nested, &name, written));
    let Some(options) = &mut message.options else { return };
    let says = |option: &UninterpretedOption| {
        matches!(option.name.as_slice(), [part] if !part.is_extension && part.name_part == "map_entry")
            && option.identifier_value() == "true"
    };
    if options.uninterpreted_option.iter().any(says) {
        options.map_entry = Some(true);
        written.insert(name);
    }
}

/// Drops all options that decoding does not need: their definitions then need not be found.
fn strip_file(file: &mut FileDescriptorProto) {
    if let Some(options) = &mut file.options {
        strip(&mut options.uninterpreted_option, false);
    }
    file.message_type.iter_mut().for_each(strip_message);
    file.enum_type.iter_mut().for_each(strip_enum);
    for options in file.extension.iter_mut().filter_map(|extension| extension.options.as_mut()) {
        strip(&mut options.uninterpreted_option, false);
    }
}

fn strip_message(message: &mut DescriptorProto) {
    if let Some(options) = &mut message.options {
        strip(&mut options.uninterpreted_option, false);
    }
    for field in &mut message.field {
        let decimal = field.type_name().ends_with("Decimal");
        if let Some(options) = &mut field.options {
            strip(&mut options.uninterpreted_option, decimal);
        }
    }
    for options in message.oneof_decl.iter_mut().filter_map(|oneof| oneof.options.as_mut()) {
        strip(&mut options.uninterpreted_option, false);
    }
    for options in message.extension_range.iter_mut().filter_map(|range| range.options.as_mut()) {
        options.uninterpreted_option.clear();
    }
    message.extension.clear();
    message.nested_type.iter_mut().for_each(strip_message);
    message.enum_type.iter_mut().for_each(strip_enum);
}

fn strip_enum(kind: &mut EnumDescriptorProto) {
    if let Some(options) = &mut kind.options {
        strip(&mut options.uninterpreted_option, false);
    }
    for options in kind.value.iter_mut().filter_map(|value| value.options.as_mut()) {
        options.uninterpreted_option.clear();
    }
}

/// Keeps `allow_alias`, without which the enum is in error, the features of editions, and where asked for the
/// parameters of a decimal.
fn strip(options: &mut Vec<UninterpretedOption>, decimal: bool) {
    let named = |part: Option<&NamePart>, name: &str| part.is_some_and(|p| !p.is_extension && p.name_part == name);
    options.retain(|option| {
        let name = &option.name;
        named(name.first(), "allow_alias")
            || named(name.first(), "features") && name.iter().all(|part| !part.is_extension)
            || decimal && is_meta(option)
    });
}

fn is_meta(option: &UninterpretedOption) -> bool {
    option.name.first().is_some_and(|p| p.is_extension && p.name_part.trim_start_matches('.') == "confluent.field_meta")
}

fn has_meta(message: &DescriptorProto) -> bool {
    let mut options = message.field.iter().filter_map(|field| field.options.as_ref());
    options.any(|options| options.uninterpreted_option.iter().any(is_meta)) || message.nested_type.iter().any(has_meta)
}
