//! Tests of arguments: what is taken, what is refused, and that every command shows an example.

use clap::CommandFactory as _;
use clap::error::ErrorKind as Refusal;

use super::*;

#[track_caller]
fn check(line: &str, refused: Option<Refusal>) {
    let parsed = Args::try_parse_from(line.split(' '));
    assert_eq!(parsed.err().map(|error| error.kind()), refused, "{line}");
}

#[test]
fn arguments_are_taken_or_refused() {
    Args::command().debug_assert();
    for line in [
        "frazil demo",
        "frazil demo --dir d --rate 5 --once",
        "frazil run -c f.yaml --until-caught-up --json",
        "frazil run --config f.yaml --roles ingest,maintain",
        "frazil check -c f.yaml",
        "frazil --json status --watch",
        "frazil tables list -c f.yaml",
        "frazil tables -c f.yaml describe a.b",
        "frazil tables snapshots a.b",
        "frazil tables files a.b --json",
        "frazil tables resume a.b",
        "frazil tables resume a.b --from ledger",
        "frazil tables resume a.b --from snapshot",
        "frazil dead-letters list",
        "frazil dead-letters list a.b --since 2h --reason truncated --reason null_value --json",
        "frazil dead-letters show a.b t/0/1 t@1/2/3 --value",
        "frazil dead-letters -c f.yaml show a.b --topic t --limit 3",
        "frazil dead-letters replay a.b --offset t/0/1 --offset t/0/2 --dry-run",
        "frazil maintain --dry-run",
        "frazil maintain a.b c.d --compact --expire -c f.yaml",
        "frazil maintain a.b --orphans --older-than 7d --json",
        "frazil mcp -c f.yaml",
        "frazil mcp --check-audit --json",
        "frazil config schema",
        "frazil config example",
        "frazil token new --name n --scopes read,metrics",
        "frazil token new --scopes read:search,read:sql,read:kafka",
    ] {
        check(line, None);
    }
    check("frazil", Some(Refusal::DisplayHelpOnMissingArgumentOrSubcommand));
    check("frazil nothing", Some(Refusal::InvalidSubcommand));
    check("frazil run --roles cook", Some(Refusal::InvalidValue));
    check("frazil demo --rate 0", Some(Refusal::ValueValidation));
    check("frazil tables describe noname", Some(Refusal::ValueValidation));
    check("frazil tables resume a.b --from main", Some(Refusal::InvalidValue));
    check("frazil dead-letters replay", Some(Refusal::MissingRequiredArgument));
    check("frazil dead-letters replay a.b --reason bad", Some(Refusal::InvalidValue));
    check("frazil dead-letters list --since soon", Some(Refusal::ValueValidation));
    check("frazil dead-letters show a.b t/0", Some(Refusal::ValueValidation));
    check("frazil maintain --older-than 7d", Some(Refusal::MissingRequiredArgument));
    check("frazil maintain --orphans --older-than soon", Some(Refusal::ValueValidation));
    check("frazil token new --scopes all", Some(Refusal::InvalidValue));
    check("frazil config schema --watch", Some(Refusal::UnknownArgument));
}

#[test]
fn only_who_ingests_catches_up() {
    let parse = |line: &str| match Args::try_parse_from(line.split(' ')).unwrap().command {
        Command::Run(args) => args.check(),
        other => panic!("{other:?}"),
    };
    assert!(parse("frazil run --roles serve,maintain").is_ok());
    let error = parse("frazil run --roles maintain --until-caught-up").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("`ingest`"), "{error}");
}

#[test]
fn every_command_shows_an_example() {
    fn visit(command: &mut clap::Command) {
        let help = command.render_help().to_string();
        assert!(help.contains("Example"), "{}", command.get_name());
        command.get_subcommands_mut().filter(|command| command.get_name() != "help").for_each(visit);
    }
    visit(&mut Args::command());
}
