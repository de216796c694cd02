(create_table (object_reference) @name) @definition.table
(create_view (object_reference) @name) @definition.view
(create_materialized_view (object_reference) @name) @definition.view
(create_index column: (identifier) @name) @definition.index
(create_function (object_reference) @name) @definition.function
(create_type (object_reference) @name) @definition.type
(create_trigger (keyword_trigger) . (object_reference) @name) @definition.trigger
(create_table (column_definitions (column_definition name: (identifier) @name) @definition.field))
(relation (object_reference name: (identifier) @reference))
(invocation (object_reference name: (identifier) @reference))
