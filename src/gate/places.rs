//! Maps the fields of a normalised text to their places in the text that the client sent.

use apollo_compiler::parser::{SourceMap, SourceSpan};

/// The places of the fields of one normalised text.
#[derive(Clone, Debug)]
pub struct Places {
    /// The column at which each field begins, in ascending order, and the place of the field in the client's text.
    fields: Vec<(usize, Option<SourceSpan>)>,
    sources: SourceMap,
}

impl Places {
    pub(super) fn new(fields: Vec<(usize, Option<SourceSpan>)>, sources: &SourceMap) -> Self {
        Self { fields, sources: SourceMap::clone(sources) }
    }

    /// Returns the line and the column, both from 1, in the client's text of the field at this column of the normalised text. The
    /// normalised text is a single line. An argument belongs to its field.
    pub fn find(&self, column: usize) -> Option<(usize, usize)> {
        let following = self.fields.partition_point(|(start, _)| *start <= column);
        let (_, span) = self.fields.get(following.checked_sub(1)?)?;
        let start = (*span)?.line_column_range(&self.sources)?.start;
        Some((start.line, start.column))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::admit_with;

    /// Returns the place of each field in `query`. A name is the text with which the field begins in the normalised text.
    fn lines_and_columns(query: &str, names: &[&str]) -> Vec<Option<(usize, usize)>> {
        let admitted = admit_with(query, json!({"n": 1})).unwrap();
        let column = |name: &&str| {
            admitted.document.chars().collect::<String>().split(*name).next().unwrap().chars().count() + 1
        };
        names.iter().map(|name| admitted.places.find(column(name))).collect()
    }

    #[test]
    fn fields_are_found_where_they_were_sent() {
        let query = "query Q($n: Int) {\n  echo(text: \"é😀\", number: $n)\n  ...F # é\n}\nfragment F on Query {\n\tmine: me { id }\n  goals { __typename } }";
        let names = ["echo", "number", "mine", "id}", "goals", "__typename"];
        let expected = [(2, 3), (2, 3), (6, 2), (6, 13), (7, 3), (7, 11)].map(Some);
        assert_eq!(lines_and_columns(query, &names), expected);
        assert_eq!(lines_and_columns(query, &["query"]), [None]);
    }

    #[test]
    fn of_fields_that_are_joined_the_first_is_found() {
        let query = "\"Über\" query Q {\n  me { id }\n  me { label }\n}";
        assert_eq!(lines_and_columns(query, &["me", "label"]), [Some((2, 3)), Some((3, 8))]);
    }
}
