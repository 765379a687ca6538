//! The table of instructions: what each is called, which flags it takes, what its arguments look like.
//!
//! Parsing, suggestions and documentation all read this one table.

use std::fmt;

/// The instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Docker's own")]
pub enum Keyword {
    From,
    Run,
    Cmd,
    Label,
    Maintainer,
    Expose,
    Env,
    Add,
    Copy,
    Entrypoint,
    Volume,
    User,
    Workdir,
    Arg,
    Onbuild,
    Stopsignal,
    Healthcheck,
    Shell,
}

/// What may follow a flag's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagKind {
    /// Bare, `=true` or `=false`.
    Bool,
    /// `=value`, once.
    Text,
    /// `=value`, any number of times.
    List,
}

/// One flag of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagInfo {
    /// Name without the dashes.
    pub name: &'static str,
    /// What follows it.
    pub kind: FlagKind,
}

/// What the arguments of an instruction look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentShape {
    /// `image [AS name]`.
    Base,
    /// A command in shell or exec form.
    Command,
    /// A JSON array and nothing else.
    Exec,
    /// `key=value …`, or the legacy `key value`.
    Pairs,
    /// `name[=value] …`.
    Names,
    /// Words between blanks, or a JSON array.
    List,
    /// Words between blanks.
    Words,
    /// The rest of the line as one value.
    Text,
    /// `NONE` or `CMD` and a command.
    Health,
    /// Another instruction.
    Instruction,
}

/// Everything about an instruction that is not code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstructionInfo {
    /// Which.
    pub keyword: Keyword,
    /// Its name in capitals.
    pub name: &'static str,
    /// Its flags.
    pub flags: &'static [FlagInfo],
    /// Its arguments.
    pub arguments: ArgumentShape,
    /// Whether here-documents may follow.
    pub heredoc: bool,
    /// Whether a JSON array is understood.
    pub json: bool,
    /// Whether ONBUILD may hold it.
    pub onbuild: bool,
    /// One line of grammar for error messages.
    pub usage: &'static str,
}

impl InstructionInfo {
    /// Where the instruction is documented.
    pub fn reference(&self) -> String {
        format!(
            "https://docs.docker.com/reference/dockerfile/#{}",
            self.name.to_lowercase()
        )
    }
}

const fn flag(name: &'static str, kind: FlagKind) -> FlagInfo {
    FlagInfo { name, kind }
}

macro_rules! instructions {
    ($($keyword:ident $name:literal $shape:ident [$($flag:literal: $kind:ident),*] ($($property:ident),*) $usage:literal;)*) => {
        /// All instructions, in the order of the reference manual's grammar.
        #[expect(clippy::needless_update, reason = "some rows set every property")]
        pub static INSTRUCTIONS: &[InstructionInfo] = &[$(InstructionInfo {
            keyword: Keyword::$keyword,
            name: $name,
            flags: &[$(flag($flag, FlagKind::$kind)),*],
            arguments: ArgumentShape::$shape,
            $($property: true,)*
            usage: $usage,
            ..NOTHING
        }),*];
    };
}

const NOTHING: InstructionInfo = InstructionInfo {
    keyword: Keyword::From,
    name: "",
    flags: &[],
    arguments: ArgumentShape::Text,
    heredoc: false,
    json: false,
    onbuild: false,
    usage: "",
};

instructions! {
    From "FROM" Base ["platform": Text] () "FROM [--platform=<platform>] <image> [AS <name>]";
    Run "RUN" Command ["mount": List, "network": Text, "security": Text, "device": List] (heredoc, json, onbuild)
        "RUN [--mount=…] [--network=…] [--security=…] [--device=…] <command>";
    Cmd "CMD" Command [] (json, onbuild) "CMD [\"executable\", \"argument\"] or CMD <command>";
    Label "LABEL" Pairs [] (onbuild) "LABEL <key>=<value> …";
    Maintainer "MAINTAINER" Text [] () "MAINTAINER <name>";
    Expose "EXPOSE" Words [] (onbuild) "EXPOSE <port>[/<protocol>] …";
    Env "ENV" Pairs [] (onbuild) "ENV <key>=<value> …";
    Add "ADD" List ["chown": Text, "chmod": Text, "link": Bool, "keep-git-dir": Bool, "checksum": Text, "unpack": Bool, "exclude": List]
        (heredoc, json, onbuild) "ADD [flags] <source> … <destination>";
    Copy "COPY" List ["from": Text, "chown": Text, "chmod": Text, "link": Bool, "parents": Bool, "exclude": List]
        (heredoc, json, onbuild) "COPY [flags] <source> … <destination>";
    Entrypoint "ENTRYPOINT" Command [] (json, onbuild) "ENTRYPOINT [\"executable\", \"argument\"] or ENTRYPOINT <command>";
    Volume "VOLUME" List [] (json, onbuild) "VOLUME <path> … or VOLUME [\"<path>\"]";
    User "USER" Text [] (onbuild) "USER <user>[:<group>]";
    Workdir "WORKDIR" Text [] (onbuild) "WORKDIR <path>";
    Arg "ARG" Names [] (onbuild) "ARG <name>[=<default>] …";
    Onbuild "ONBUILD" Instruction [] () "ONBUILD <instruction>";
    Stopsignal "STOPSIGNAL" Text [] (onbuild) "STOPSIGNAL <signal>";
    Healthcheck "HEALTHCHECK" Health
        ["interval": Text, "timeout": Text, "start-period": Text, "start-interval": Text, "retries": Text]
        (json, onbuild) "HEALTHCHECK [flags] CMD <command> or HEALTHCHECK NONE";
    Shell "SHELL" Exec [] (json, onbuild) "SHELL [\"executable\", \"argument\"]";
}

impl Keyword {
    /// The instruction's row in the table.
    pub fn info(self) -> &'static InstructionInfo {
        &INSTRUCTIONS[self as usize]
    }

    /// The keyword for a word in any case.
    pub fn parse(word: &str) -> Option<Self> {
        INSTRUCTIONS
            .iter()
            .find(|info| info.name.eq_ignore_ascii_case(word))
            .map(|info| info.keyword)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.info().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_indexed_by_keyword() {
        assert_eq!(INSTRUCTIONS.len(), 18);
        for info in INSTRUCTIONS {
            assert_eq!(info.keyword.info(), info);
            assert_eq!(Keyword::parse(&info.name.to_lowercase()), Some(info.keyword));
            assert!(info.usage.starts_with(info.name));
        }
        assert_eq!(Keyword::parse("RUNN"), None);
    }
}
