//! Rust sources as tidy sees them: tokens without comments and literals, and the tree of modules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One token: an identifier, a number, `::`, or a single sign. A literal is its quotes only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its text.
    pub(crate) text: String,
    /// Its line, from 1 on.
    pub(crate) line: usize,
}

/// The tokens of `text`.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        rest: text,
        line: 1,
        tokens: Vec::new(),
    };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let first = self.rest.chars().next().expect("not at the end");
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if let Some((prefix, hashes)) = self.raw_string() {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = prefix + hashes + 1;
            let length = self.rest[body..].find(&end);
            let length = length.map_or(self.rest.len(), |at| body + at + end.len());
            self.literal(length);
        } else if first == '"' || self.rest.starts_with("b\"") || self.rest.starts_with("c\"") {
            self.quoted('"');
        } else if first == '\'' || self.rest.starts_with("b'") {
            self.quote_or_lifetime();
        } else if first.is_alphanumeric() || first == '_' {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
            self.push(length);
        } else if self.rest.starts_with("::") {
            self.push(2);
        } else {
            self.push(first.len_utf8());
        }
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }

    fn push(&mut self, length: usize) {
        let text = self.rest[..length].to_owned();
        self.tokens.push(Token {
            text,
            line: self.line,
        });
        self.skip(length);
    }

    fn literal(&mut self, length: usize) {
        self.tokens.push(Token {
            text: "\"\"".to_owned(),
            line: self.line,
        });
        self.skip(length);
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        let mut at = 0;
        loop {
            let rest = &self.rest[at..];
            if rest.starts_with("/*") {
                depth += 1;
                at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                at += 2;
            } else {
                match rest.chars().next() {
                    Some(c) => at += c.len_utf8(),
                    None => break,
                }
            }
            if depth == 0 {
                break;
            }
        }
        self.skip(at);
    }

    /// Bytes before the hashes, and how many there are, when a raw string starts here.
    fn raw_string(&self) -> Option<(usize, usize)> {
        let prefix = ["br", "cr", "r"]
            .into_iter()
            .find(|prefix| self.rest.starts_with(prefix))?;
        let rest = &self.rest[prefix.len()..];
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        rest[hashes..]
            .starts_with('"')
            .then_some((prefix.len(), hashes))
    }

    fn quoted(&mut self, quote: char) {
        let start = self.rest.find(quote).expect("it starts with it") + 1;
        let mut is_escaped = false;
        let end = self.rest[start..].char_indices().find(|(_, c)| {
            let is_end = *c == quote && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            is_end
        });
        let length = end.map_or(self.rest.len(), |(at, _)| start + at + 1);
        self.literal(length);
    }

    fn quote_or_lifetime(&mut self) {
        let start = self.rest.find('\'').expect("it starts with it") + 1;
        let mut chars = self.rest[start..].chars();
        let first = chars.next();
        let is_literal = first == Some('\\') || chars.next() == Some('\'');
        if is_literal {
            self.quoted('\'');
        } else {
            self.skip(start); // The name behind it becomes an identifier, which harms nobody.
        }
    }
}

/// A source file and the modules above it: `["log", "journal"]` for `src/log/journal.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// The file.
    pub(crate) file: PathBuf,
    /// Its path of modules below the crate.
    pub(crate) path: Vec<String>,
    /// Whether it is compiled for tests only.
    pub(crate) is_test: bool,
}

/// Every file that a `mod` line of `root` reaches, `root` first.
pub(crate) fn modules(root: &Path) -> Vec<Module> {
    let mut found = vec![Module {
        file: root.to_owned(),
        path: Vec::new(),
        is_test: false,
    }];
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut next = 0;
    while let Some(module) = found.get(next).cloned() {
        next += 1;
        let Ok(text) = std::fs::read_to_string(&module.file) else {
            panic!("{} is named by a mod line", module.file.display());
        };
        for child in children(&module, &text) {
            // The same file stands in the tree once for every feature that names it.
            if seen.insert(child.file.clone()) {
                found.push(child);
            }
        }
    }
    found
}

fn children(module: &Module, text: &str) -> Vec<Module> {
    let is_folder = module.path.is_empty() || module.file.ends_with("mod.rs");
    let folder = match is_folder {
        true => module.file.parent().expect("a file").to_owned(),
        false => module.file.with_extension(""),
    };
    let mut children = Vec::new();
    let (mut is_test, mut path) = (false, None);
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[cfg(") && line.contains("test");
            path = path.or(line.strip_prefix("#[path = \""));
            continue;
        }
        if let Some(name) = module_line(line) {
            let file = match path.and_then(|path: &str| path.split('"').next()) {
                Some(path) => folder.join(path),
                None => {
                    let flat = folder.join(format!("{name}.rs"));
                    let nested = folder.join(name).join("mod.rs");
                    if flat.exists() { flat } else { nested }
                }
            };
            let mut names = module.path.clone();
            names.push(name.to_owned());
            children.push(Module {
                file,
                path: names,
                is_test: module.is_test || is_test,
            });
        }
        (is_test, path) = (false, None);
    }
    children
}

/// The name in a line like `pub mod name;`.
pub(crate) fn module_line(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?;
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let name = line.strip_prefix("mod ")?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then_some(name)
}
