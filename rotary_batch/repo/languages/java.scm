(class_declaration name: (identifier) @name) @definition.class
(interface_declaration name: (identifier) @name) @definition.interface
(enum_declaration name: (identifier) @name) @definition.enum
(record_declaration name: (identifier) @name) @definition.record
(annotation_type_declaration name: (identifier) @name) @definition.annotation
(module_declaration name: (_) @name) @definition.module
(method_declaration name: (identifier) @name) @definition.method
(annotation_type_element_declaration name: (identifier) @name) @definition.method
(constructor_declaration name: (identifier) @name) @definition.constructor
(compact_constructor_declaration name: (identifier) @name) @definition.constructor
(enum_constant name: (identifier) @name) @definition.member
; java.py takes the names of one declaration apart.
[(field_declaration) (constant_declaration)] @definition.field
(method_invocation name: (identifier) @reference)
(object_creation_expression type: (type_identifier) @reference)
(import_declaration (scoped_identifier name: (identifier) @import))
