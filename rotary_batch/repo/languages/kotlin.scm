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
; Scopes, what is bound in them, and imports.
[(function_declaration) (anonymous_function) (lambda_literal) (block) (for_statement) (catch_block)] @local.scope
[(class_declaration) (object_declaration)] @local.class
(parameter . (identifier) @local (user_type)? @local.type)
(class_parameter (identifier) @local (user_type)? @local.type)
(variable_declaration . (identifier) @local (user_type)? @local.type)
(property_declaration (variable_declaration . (identifier) @local .)
  [(call_expression) (navigation_expression)] @local.value)
[(import) (package_header)] @import.statement
