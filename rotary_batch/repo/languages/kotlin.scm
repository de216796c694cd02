(class_declaration name: (identifier) @name) @definition.class
(object_declaration name: (identifier) @name) @definition.class
(companion_object) @definition.class
(enum_entry (identifier) @name) @definition.member
(function_declaration name: (identifier) @name) @definition.function
(secondary_constructor) @definition.constructor
(property_declaration (variable_declaration (identifier) @name)) @definition.property
(class_parameter ["val" "var"] (identifier) @name) @definition.field
(type_alias type: (identifier) @name) @definition.type
(call_expression . (identifier) @reference)
(call_expression . (navigation_expression (identifier) @reference .))
(constructor_invocation (user_type (identifier) @reference .))
(import (qualified_identifier (identifier) @import .) .)
(import (qualified_identifier) (identifier) @import)
