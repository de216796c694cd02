; Also the first half of TypeScript's query.  `ecmascript.py` reads names, kinds, bases and exports out of each match.
(function_declaration name: (_) @name) @definition.function
(generator_function_declaration name: (_) @name) @definition.function
(class_declaration name: (_) @name) @definition.class
(class_body (method_definition) @definition.method)

; Functions and classes that a variable holds are definitions everywhere, other values in the file's own variables.
(variable_declarator
  name: (identifier)
  value: [(arrow_function) (function_expression) (generator_function) (class)]) @definition.variable
(program [
  (lexical_declaration (variable_declarator) @definition.variable)
  (variable_declaration (variable_declarator) @definition.variable)
  (export_statement declaration: [
    (lexical_declaration (variable_declarator) @definition.variable)
    (variable_declaration (variable_declarator) @definition.variable)])])

; `each(function visit() {})`, `return function visit() {}`, `return { open() {} }`
(arguments [(function_expression name: (_) @name) (generator_function name: (_) @name)] @definition.function)
(return_statement [
  (function_expression name: (_) @name) (generator_function name: (_) @name) (class name: (_) @name)] @definition.function)
(return_statement (object) @definition.function)
(arrow_function body: (parenthesized_expression (object) @definition.function))

; `exports.x =`, `Foo.prototype.x =`, `app.x = function`
(assignment_expression left: [(identifier) (member_expression) (subscript_expression)]) @definition.variable
; `Object.assign(Foo.prototype, { … })`, `Object.defineProperty(foo, "x", { … })`
(program (expression_statement (call_expression arguments: (arguments (_) (_))) @definition.property))
; `export { a as b }`, `export default …`
(export_statement !declaration) @definition.export

(call_expression function: (identifier) @reference)
(call_expression function: (member_expression property: (property_identifier) @reference))
(new_expression constructor: (identifier) @reference)
(import_specifier name: (identifier) @import)
(import_clause (identifier) @import)
(namespace_import (identifier) @import)
; Scopes, what is bound in them, and imports.
[(function_declaration) (generator_function_declaration) (function_expression) (arrow_function) (method_definition)
 (statement_block) (for_statement) (for_in_statement) (catch_clause) (switch_body)] @local.scope
[(class_declaration) (class)] @local.class
(formal_parameters (_) @local)
(arrow_function parameter: (identifier) @local)
(variable_declarator name: (_) @local value: (_)? @local.value)
(for_in_statement left: (_) @local)
(catch_clause parameter: (_) @local)
(assignment_expression left: (member_expression object: (this)) @local right: (_) @local.value)
[(import_statement) (export_statement)] @import.statement
(variable_declarator value: (call_expression function: (identifier) @_require)
  (#eq? @_require "require")) @import.statement
(variable_declarator value: (member_expression object: (call_expression function: (identifier) @_require))
  (#eq? @_require "require")) @import.statement
((assignment_expression left: (member_expression) @_target) @import.statement (#match? @_target "^(module[.])?exports\\b"))
