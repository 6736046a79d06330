//! Two replicas that change one table, each by the versions that it meets and by a state that may be old: whatever the
//! order, they come to rest, no column gets a name twice, and a field has one column whatever version writes it.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::super::MessagePath;
use super::super::evolution::{Evolution, Side, evolved, wanted};
use super::super::identity::{each_struct, matching};
use super::super::layout::Layout;
use super::super::mapping::TimeAs;
use super::super::schema::{Columns, Schema};
use super::layout;
use super::versions::{F, Kind, PLACES, Place, f, text};
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{RegisteredSchema, SchemaFormat};

/// What happens to the fields from one version to the next.
#[derive(Debug, Clone)]
enum Step {
    Add,
    Drop(usize),
    Rename(usize),
    /// To one of three names, whoever has or had it.
    RenameTo(usize, usize),
    Reverse,
}

fn step(reuses_names: bool) -> BoxedStrategy<Step> {
    let plain = prop_oneof![
        2 => Just(Step::Add),
        1 => any::<usize>().prop_map(Step::Drop),
        3 => any::<usize>().prop_map(Step::Rename),
        1 => Just(Step::Reverse),
    ];
    let reuse = (any::<usize>(), 0..3_usize).prop_map(|(at, name)| Step::RenameTo(at, name));
    if reuses_names { prop_oneof![1 => plain, 2 => reuse].boxed() } else { plain.boxed() }
}

/// The versions that the steps lead to. Names are never used again but by `RenameTo`.
fn versions(steps: &[Step]) -> Vec<Vec<F>> {
    let mut fields = vec![f(1, "a", Kind::Long), f(2, "b", Kind::Text)];
    let (mut all, mut fresh) = (vec![fields.clone()], 2);
    for step in steps {
        fresh += 1;
        let len = fields.len();
        let mut rename = |at: usize, name: String| {
            if len > 0 && fields.iter().all(|field| field.name != name) {
                let field = &mut fields[at % len];
                field.aliases.push(std::mem::replace(&mut field.name, name));
            }
        };
        match step {
            Step::Rename(at) => rename(*at, format!("f{fresh}")),
            Step::RenameTo(at, name) => rename(*at, ["a", "b", "c"][*name].to_owned()),
            Step::Add => fields.push(f(fresh, &format!("f{fresh}"), Kind::Long)),
            Step::Drop(at) if len > 1 => drop(fields.remove(at % len)),
            Step::Drop(_) => {}
            Step::Reverse => fields.reverse(),
        }
        all.push(fields.clone());
    }
    all
}

struct World {
    layout: Layout,
    place: Place,
    /// Columns that each version wants.
    wanted: Vec<TableSchema>,
    table: TableSchema,
    last_id: i32,
    /// By column the names that it had, in order.
    names: BTreeMap<i32, Vec<String>>,
}

impl World {
    fn new(language: SchemaFormat, place: Place, evolution: Evolution, versions: &[Vec<F>]) -> Self {
        let layout = Layout { evolution, ..layout(TimeAs::Long) };
        let all = (1..).zip(versions).map(|(id, fields)| {
            let text = text(language, place, fields);
            let registered = RegisteredSchema { id, format: language, text, references: Vec::new() };
            let schema = Schema::parse(&registered).unwrap();
            let columns = schema.columns(MessagePath::FIRST, layout.mapping).unwrap();
            let key = Side { columns: Columns::Nothing, version: None };
            let value = Side { columns, version: Some(("R".to_owned(), id)) };
            wanted(&TableSchema::default(), &layout, key, value).unwrap()
        });
        let wanted = all.collect();
        Self { layout, place, wanted, table: TableSchema::default(), last_id: 0, names: BTreeMap::new() }
    }

    /// A replica that knows the table as `view` meets a version; false where it needs nothing of the table.
    fn meet(&mut self, view: &mut TableSchema, version: usize) -> Result<bool, String> {
        let Some(mut next) = evolved(view, &self.wanted[version], &self.layout)? else { return Ok(false) };
        if *view == self.table {
            number(&mut next.fields, &mut self.last_id);
            self.note(&next.fields);
            self.table = next;
        }
        view.clone_from(&self.table);
        Ok(true)
    }

    fn note(&mut self, fields: &[Field]) {
        for field in fields {
            let names = self.names.entry(field.id).or_default();
            if names.last() != Some(&field.name) {
                assert!(!names.contains(&field.name), "a name is given twice: {names:?} {}", field.name);
                names.push(field.name.clone());
            }
            each_struct(&mut field.kind.clone(), &mut |fields| self.note(fields));
        }
    }

    /// Lets both replicas meet all versions until nothing changes any more.
    fn settle(&mut self, views: &mut [TableSchema; 2]) -> Result<(), String> {
        for round in 0.. {
            assert!(round < 12, "the table does not come to rest");
            let mut changed = false;
            for version in 0..self.wanted.len() {
                for view in views.iter_mut() {
                    changed |= self.meet(view, version)?;
                }
            }
            if !changed {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The columns that a version's fields have, in the version's order.
    fn columns(&self, version: usize) -> Vec<Field> {
        let (table, wanted) = (inner(&self.table.fields, self.place), inner(&self.wanted[version].fields, self.place));
        let found = matching(&table, &wanted).into_iter().zip(&wanted);
        let data = found.filter(|(_, field)| !self.layout.is_metadata(&field.name));
        data.map(|(at, field)| table[at.unwrap_or_else(|| panic!("no column for {field:?}"))].clone()).collect()
    }
}

fn inner(fields: &[Field], place: Place) -> Vec<Field> {
    let n = || fields.iter().find(|field| field.name == "n").unwrap().kind.clone();
    let fields_of = |kind: Type| if let Type::Struct(fields) = kind { fields } else { panic!("no struct") };
    match (place, place == Place::Top) {
        (_, true) => fields.to_vec(),
        (Place::List, _) => {
            if let Type::List(element) = n() {
                fields_of(element.kind)
            } else {
                panic!("no list")
            }
        }
        (Place::Map, _) => {
            if let Type::Map(_, value) = n() {
                fields_of(value.kind)
            } else {
                panic!("no map")
            }
        }
        _ => fields_of(n()),
    }
}

fn number(fields: &mut [Field], last: &mut i32) {
    for field in fields {
        if field.id == 0 {
            *last += 1;
            field.id = *last;
        }
        each_struct(&mut field.kind, &mut |fields| number(fields, last));
    }
}

/// Replica, version, and whether the replica has looked at the table before.
type Meeting = (bool, usize, bool);

fn meet_all(world: &mut World, meetings: &[Meeting]) -> Result<[TableSchema; 2], String> {
    let mut views = [TableSchema::default(), TableSchema::default()];
    for (replica, version, looks) in meetings {
        let view = &mut views[usize::from(*replica)];
        if *looks {
            view.clone_from(&world.table);
        }
        world.meet(view, version % world.wanted.len())?;
    }
    world.settle(&mut views)?;
    Ok(views)
}

fn meetings() -> impl Strategy<Value = Vec<Meeting>> {
    proptest::collection::vec((any::<bool>(), any::<usize>(), any::<bool>()), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_come_to_the_names_of_the_newest_version(
        steps in proptest::collection::vec(step(false), 0..6),
        meetings in meetings(),
        place in proptest::sample::select(&PLACES[..]),
        is_avro: bool,
        is_full: bool,
    ) {
        let language = if is_avro { SchemaFormat::Avro } else { SchemaFormat::Protobuf };
        let evolution = if is_full { Evolution::Full } else { Evolution::Extend };
        let versions = versions(&steps);
        let mut world = World::new(language, place, evolution, &versions);
        let views = meet_all(&mut world, &meetings).unwrap();
        prop_assert_eq!(&views[0], &world.table);
        prop_assert_eq!(&views[1], &world.table);
        let mut of_field: HashMap<u32, i32> = HashMap::new();
        for (version, fields) in versions.iter().enumerate() {
            for (field, column) in fields.iter().zip(world.columns(version)) {
                let known = *of_field.entry(field.number).or_insert(column.id);
                prop_assert_eq!(known, column.id, "{:?} has two columns", field);
                if version + 1 == versions.len() {
                    prop_assert_eq!(&field.name, &column.name);
                }
            }
        }
    }

    #[test]
    fn replicas_come_to_rest_whatever_names_are_used_again(
        steps in proptest::collection::vec(step(true), 0..8),
        meetings in meetings(),
        place in proptest::sample::select(&PLACES[..]),
        is_avro: bool,
        is_full: bool,
    ) {
        let language = if is_avro { SchemaFormat::Avro } else { SchemaFormat::Protobuf };
        let evolution = if is_full { Evolution::Full } else { Evolution::Extend };
        let mut world = World::new(language, place, evolution, &versions(&steps));
        // Fields of different types may have had one name: then records are rejected, and the table rests all the more.
        if let Ok([one, other]) = meet_all(&mut world, &meetings) {
            prop_assert_eq!(&one, &world.table);
            prop_assert_eq!(&other, &world.table);
        }
    }
}
