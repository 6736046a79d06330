//! Where a file lies: the text of a location in its parts and in one canonical form. No I/O.

use std::path::{Component, PathBuf};

use crate::error::{Error, Result};

/// A location in its parts. The key is raw text: Iceberg never percent-decodes a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) scheme: Scheme,
    /// Bucket, or container with its account; empty for local files and memory.
    pub(super) authority: String,
    /// What follows the root, without a leading slash.
    pub(super) key: String,
}

/// The kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    File,
    Memory,
    S3,
    Gcs,
    /// The scheme as written is kept: it says how Azure's authority reads.
    Azure(&'static str),
}

impl Location {
    /// Takes a location apart; a relative path is taken from the working folder.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match text.strip_prefix("file:") {
                Some(path) => ("file", path),
                None => return Self::local(text),
            },
        };
        let scheme = match scheme {
            "file" => return Self::local(rest.strip_prefix("localhost").unwrap_or(rest)),
            "memory" => {
                let key = rest.trim_matches('/').to_owned();
                return Ok(Self { scheme: Scheme::Memory, authority: String::new(), key });
            }
            "s3" | "s3a" | "s3n" => Scheme::S3,
            "gs" => Scheme::Gcs,
            "az" => Scheme::Azure("az"),
            "abfs" => Scheme::Azure("abfs"),
            "abfss" => Scheme::Azure("abfss"),
            _ => {
                return Err(Error::invalid_config(format!(
                    "location `{text}` is neither a path nor one of file://, s3://, gs://, az://, abfss://, memory://"
                )));
            }
        };
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(Error::invalid_config(format!("location `{text}` names no bucket")));
        }
        Ok(Self { scheme, authority: authority.to_owned(), key: key.trim_matches('/').to_owned() })
    }

    fn local(path: &str) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|e| Error::invalid_config(format!("`{path}` is no path")).with_source(e))?;
        let mut clean = PathBuf::new();
        for part in absolute.components() {
            match part {
                Component::ParentDir => {
                    clean.pop();
                }
                part => clean.push(part),
            }
        }
        let text = clean.to_str().ok_or_else(|| Error::invalid_config(format!("path `{path}` is not unicode")))?;
        Ok(Self { scheme: Scheme::File, authority: String::new(), key: text.trim_matches('/').to_owned() })
    }

    /// The store's own part of the location, ending in a slash: `s3://bucket/`, `file:///`.
    pub(super) fn root(&self) -> String {
        let scheme = match self.scheme {
            Scheme::File => "file",
            Scheme::Memory => "memory",
            Scheme::S3 => "s3",
            Scheme::Gcs => "gs",
            Scheme::Azure(scheme) => scheme,
        };
        format!("{scheme}://{}/", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str) {
        let location = Location::parse(text).unwrap();
        assert_eq!(format!("{}{}", location.root(), location.key), canonical);
    }

    #[test]
    fn each_spelling_has_one_canonical_form() {
        check("/a/b", "file:///a/b");
        check("/a/./x/../b/", "file:///a/b");
        check("file:/a/b", "file:///a/b");
        check("file:///a/b", "file:///a/b");
        check("file://localhost/a/b", "file:///a/b");
        check("/a/day=2024-01-01%2F/x y", "file:///a/day=2024-01-01%2F/x y");
        check("s3a://bucket/a/b/", "s3://bucket/a/b");
        check("s3n://bucket", "s3://bucket/");
        check("gs://bucket/a", "gs://bucket/a");
        check("abfss://c@account.dfs.core.windows.net/a", "abfss://c@account.dfs.core.windows.net/a");
        check("memory://a/b", "memory:///a/b");
        check("memory:///a/b", "memory:///a/b");
    }

    #[test]
    fn a_relative_path_starts_in_the_working_folder() {
        let here = std::env::current_dir().unwrap();
        check("x/y", &format!("file://{}/x/y", here.display()));
    }

    #[test]
    fn unknown_schemes_and_missing_buckets_are_refused() {
        for text in ["ftp://host/a", "s3:///a"] {
            assert_eq!(Location::parse(text).unwrap_err().kind(), crate::error::ErrorKind::InvalidConfig, "{text}");
        }
    }
}
