; Comes after c.scm.
(template_declaration (declaration) @definition.variable)
(class_specifier body: (_)) @definition.class
(namespace_definition name: (_) @name) @definition.namespace
(alias_declaration name: (type_identifier) @name) @definition.type
(concept_definition name: (identifier) @name) @definition.type
(call_expression function: (qualified_identifier name: (identifier) @reference))
(new_expression type: (type_identifier) @reference)
