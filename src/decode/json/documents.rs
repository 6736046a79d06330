//! Where a JSON Schema's references lead: by URI, file name, anchor or JSON pointer. What a schema means is not known
//! here.

use std::collections::HashMap;

use serde_json::{Map, Value};
use url::Url;

use crate::error::{Error, Result};

/// The place of texts that name none: file names are resolved against it.
const NOWHERE: &str = "json:///";

/// A schema inside a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    /// What its references are relative to: an index into [`Documents::bases`].
    base: usize,
}

#[derive(Debug, Clone)]
struct Base {
    url: Url,
    /// The number in the draft's name, where the text names one: 4, 6, 7; of later ones the year.
    draft: Option<u32>,
}

/// A schema's text and those that it refers to, indexed.
#[derive(Debug)]
pub(super) struct Documents<'a> {
    bases: Vec<Base>,
    /// By URI without fragment.
    schemas: HashMap<String, Node<'a>>,
    /// By URI with a fragment that is no JSON pointer.
    anchors: HashMap<String, Node<'a>>,
    /// The bases of schemas that have their own.
    own: HashMap<*const Value, usize>,
}

impl<'a> Documents<'a> {
    /// Indexes the texts, each with the name by which others refer to it; the first is the one to be read.
    pub(super) fn new(texts: impl Iterator<Item = (&'a str, &'a Value)>) -> Result<(Self, Option<Node<'a>>)> {
        let nowhere = Url::parse(NOWHERE).map_err(|e| Error::bug("parse a constant URI").with_source(e))?;
        let bases = vec![Base { url: nowhere.clone(), draft: None }];
        let mut documents = Self { bases, schemas: HashMap::new(), anchors: HashMap::new(), own: HashMap::new() };
        let mut root = None;
        for (name, value) in texts {
            let url = nowhere.join(name).unwrap_or_else(|_| nowhere.clone());
            let says = value.get("$schema").and_then(Value::as_str).unwrap_or_default();
            let number =
                |from: &str| says.split_once(from)?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
            documents.bases.push(Base { url, draft: number("draft-").or_else(|| number("draft/")) });
            let node = Node { value, base: documents.bases.len() - 1 };
            documents.insert(node);
            documents.index(node);
            root = root.or(Some(documents.based(node)));
        }
        Ok((documents, root))
    }

    fn insert(&mut self, node: Node<'a>) {
        let mut url = self.bases[node.base].url.clone();
        url.set_fragment(None);
        self.schemas.entry(url.into()).or_insert(node);
    }

    fn index(&mut self, node: Node<'a>) {
        match node.value {
            Value::Array(items) => items.iter().for_each(|value| self.index(Node { value, ..node })),
            Value::Object(map) => {
                let node = self.identify(node, map);
                // Values, not schemas, stand behind these.
                let members =
                    map.iter().filter(|(key, _)| !["enum", "const", "default", "examples"].contains(&&***key));
                members.for_each(|(_, value)| self.index(Node { value, ..node }));
            }
            _ => {}
        }
    }

    /// Takes note of the schema's own URI and of its anchors.
    fn identify(&mut self, mut node: Node<'a>, map: &'a Map<String, Value>) -> Node<'a> {
        let text = |key: &str| map.get(key).and_then(Value::as_str);
        let id = if self.bases[node.base].draft == Some(4) { text("id") } else { None }.or(text("$id"));
        let anchor = id.and_then(|id| id.strip_prefix('#')).filter(|anchor| !anchor.is_empty());
        if anchor.is_none()
            && let Some(url) = id.and_then(|id| self.bases[node.base].url.join(id).ok())
        {
            self.bases.push(Base { url, ..self.bases[node.base].clone() });
            node.base = self.bases.len() - 1;
            self.own.insert(node.value, node.base);
            self.insert(node);
        }
        for anchor in [anchor, text("$anchor"), text("$dynamicAnchor")].into_iter().flatten() {
            let mut url = self.bases[node.base].url.clone();
            url.set_fragment(Some(anchor));
            self.anchors.entry(url.into()).or_insert(node);
        }
        node
    }

    /// `value`, which is part of `node`.
    pub(super) fn inside(&self, node: Node<'a>, value: &'a Value) -> Node<'a> {
        self.based(Node { value, ..node })
    }

    fn based(&self, node: Node<'a>) -> Node<'a> {
        let base = self.own.get(&std::ptr::from_ref(node.value)).copied();
        Node { base: base.unwrap_or(node.base), ..node }
    }

    /// True where keywords beside `$ref` count for nothing: in drafts 4, 6 and 7.
    pub(super) fn ref_stands_alone(&self, node: Node<'_>) -> bool {
        self.bases[node.base].draft.is_some_and(|draft| draft <= 7)
    }

    /// What `reference` in `node` leads to.
    pub(super) fn find(&self, node: Node<'a>, reference: &str) -> Option<Node<'a>> {
        // References may be registered under the name that the schema writes, whatever its own URI is.
        let places = if reference.starts_with('#') { &[node.base][..] } else { &[node.base, 0] };
        places.iter().find_map(|base| {
            let mut url = self.bases[*base].url.join(reference).ok()?;
            let anchored = url.as_str().to_owned();
            let fragment = url.fragment().map(decoded).unwrap_or_default();
            url.set_fragment(None);
            let found = self.schemas.get(url.as_str());
            match fragment.as_str() {
                "" => found.copied(),
                pointer if pointer.starts_with('/') => self.pointed(*found?, &pointer[1..]),
                _ => self.anchors.get(&anchored).copied(),
            }
        })
    }

    /// RFC 6901, with an eye on schemas on the way that have URIs of their own.
    fn pointed(&self, mut node: Node<'a>, pointer: &str) -> Option<Node<'a>> {
        for token in pointer.split('/') {
            let token = token.replace("~1", "/").replace("~0", "~");
            let value = match node.value {
                Value::Object(map) => map.get(&token)?,
                Value::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                _ => return None,
            };
            node = self.inside(node, value);
        }
        Some(node)
    }
}

/// A fragment without its percent signs.
fn decoded(fragment: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = digit(tail.first()).zip(digit(tail.get(1))).filter(|_| *first == b'%');
        let code = code.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(code.unwrap_or(*first));
        rest = &tail[if code.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
